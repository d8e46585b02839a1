"""scripts/rename.sh makes a copy of this tree its owner's: what is his has the new name, the library is as it was."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from clones import commit, copy, git, run

from trainyard.base.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
NAME, PACKAGE = "zoo-shop", "zoo_shop"  # with a hyphen, and behind trainyard in the alphabet
LIBRARY = ("src/trainyard", "tests/trainyard", "docs", "benchmarks")

spec = importlib.util.spec_from_file_location("rename", ROOT / "scripts" / "rename.py")
assert spec
assert spec.loader
rename = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rename)


def call(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return run("bash", "scripts/rename.sh", name, cwd=folder, PYTHON=sys.executable)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that was renamed and committed; don't change it."""
    folder = copy(tmp_path_factory.mktemp("clone"))
    commit(folder, "All")
    git("remote", "add", "origin", "https://me:secret@example.org/trainyard.git", cwd=folder)
    result = call(folder, NAME)
    assert result.returncode == 0, result.stderr
    git("commit", "--quiet", "--message", "Rename", cwd=folder)
    return folder


def pyproject(folder: Path) -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_the_library_stays_and_gets_two_pages(clone: Path) -> None:
    changed = git("diff", "--name-status", "HEAD~1", "HEAD", "--", *LIBRARY, "*.lock", cwd=clone)
    assert changed == "A\tdocs/changelog.md\nA\tdocs/trainyard.md\n"
    assert not (clone / "CHANGELOG.md").exists()  # the owner's own, if he wants one
    assert git("status", "--porcelain", cwd=clone) == ""


def test_nothing_of_the_owners_has_the_earlier_name(clone: Path) -> None:
    left = run("git", "grep", "-lw", "my_project", "--", ".", *(f":!{path}" for path in LIBRARY), cwd=clone)
    assert left.stdout.split() == ["scripts/rename.py"]
    assert not (clone / "src" / "my_project").exists()
    # Imports in it are relative: a file of the owner's package is the same under any name.
    moved = git("diff", "-M", "--name-status", "HEAD~1", "HEAD", "--", "src", cwd=clone).splitlines()
    assert {line.split("\t")[0] for line in moved} == {"R100"}


def test_what_the_library_was_is_recorded(clone: Path) -> None:
    tree = git("rev-parse", "HEAD:src/trainyard", cwd=clone).strip()
    record = {"version": VERSION, "source": "https://example.org/trainyard.git", "tree": tree, "package": PACKAGE}
    assert pyproject(clone)["tool"]["trainyard"] == record
    assert not (clone / "tests/template").exists()
    assert not (clone / "scripts/release.sh").exists()


def test_the_project_is_found_under_its_name(clone: Path) -> None:
    project = pyproject(clone)["project"]
    assert project["name"] == NAME
    assert project["entry-points"] == {"trainyard.project": {PACKAGE: f"{PACKAGE}:project"}}
    script = "from trainyard.base.project import find_project; print(find_project().package)"
    found = run(sys.executable, "-c", script, cwd=clone, PYTHONPATH=str(clone / "src"), TRAINYARD_PROJECT=PACKAGE)
    assert (found.stdout, found.stderr) == (f"{PACKAGE}\n", "")


def test_the_readme_is_the_owners_and_leads_to_the_librarys(clone: Path) -> None:
    assert (clone / "README.md").read_text().startswith("# Zoo shop\n")
    assert (clone / "docs/trainyard.md").read_text().startswith("# Trainyard\n")
    for page in ("README.md", "docs/trainyard.md"):
        text = (clone / page).read_text()
        for target in re.findall(r"\]\((?!\w+:|#)([^)#]+)", text):
            assert (clone / page).parent.joinpath(target).exists(), target
        for command in re.findall(r"(?m)^(?:scripts/\w+\.sh)", text):
            assert os.access(clone / command, os.X_OK), command


def test_the_same_name_does_nothing_and_another_one_renames_again(clone: Path, tmp_path: Path) -> None:
    same = call(clone, NAME)
    assert (same.returncode, "already" in same.stdout) == (0, True)
    again = tmp_path / "again"
    git("clone", "--quiet", str(clone), str(again), cwd=tmp_path)
    (again / "tests" / "test_mine.py").write_text('"""zoo_shop is not zoo_shops."""\nfrom zoo_shop import project\n')
    dirty = call(again, "app")
    assert (dirty.returncode, "uncommitted" in dirty.stderr) == (2, True)
    commit(again, "Mine")

    assert call(again, "app").returncode == 0

    assert (again / "src" / "app" / "__init__.py").is_file()
    assert "from app import" in (again / "tests" / "test_mine.py").read_text()
    tool = pyproject(again)["tool"]
    assert tool["trainyard"] == pyproject(clone)["tool"]["trainyard"] | {"package": "app"}
    assert tool["importlinter"]["root_packages"] == ["trainyard", "app"]
    assert pyproject(again)["project"]["entry-points"] == {"trainyard.project": {"app": "app:project"}}
    assert (again / "README.md").read_text().startswith("# Zoo shop\n")  # it is the owner's by now


def test_files_without_a_history_are_renamed_too(clone: Path, tmp_path: Path) -> None:
    folder = copy(tmp_path / "unzipped")
    result = call(folder, NAME)
    assert result.returncode == 0, result.stderr
    assert not (folder / ".git").exists()
    expected = pyproject(clone)["tool"]["trainyard"]
    assert pyproject(folder)["tool"]["trainyard"] == {key: expected[key] for key in ("version", "tree", "package")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAME, "a"])
def test_the_renamed_project_passes_its_lint(name: str, tmp_path: Path) -> None:
    folder = copy(tmp_path / "clone")
    assert call(folder, name).returncode == 0
    # The order of imports follows the name, types don't: once is enough of what takes longest.
    for command in (["ruff", "check"], ["ruff", "format", "--check"], *([["mypy"]] if name == NAME else [])):
        lint = run(sys.executable, "-m", *command, cwd=folder, PYTHONPATH=str(folder / "src"))
        assert lint.returncode == 0, lint.stdout
    command = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    layers = run(sys.executable, "-c", command, cwd=folder, PYTHONPATH=str(folder / "src"))
    assert layers.returncode == 0, layers.stdout


@pytest.mark.slow
def test_the_renamed_project_passes_its_tests(clone: Path) -> None:
    # The library's own know nothing of the project, except for those of what finds it.
    owners = sorted(str(path) for path in (clone / "tests").glob("test_*.py"))
    command = [sys.executable, "-m", "pytest", "-x", *owners, str(clone / "tests" / "trainyard" / "base")]
    tests = run(*command, cwd=clone, PYTHONPATH=str(clone / "src"), TRAINYARD_PROJECT=PACKAGE)
    assert tests.returncode == 0, tests.stdout[-5000:]
    assert "passed" in tests.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1st", "can't name a package"),
        ("MyProject", "can't name a package"),
        ("my project", "can't name a package"),
        ("my.project", "can't name a package"),
        ("my__project", "can't name a package"),
        ("naïve", "can't name a package"),
        ("lambda", "a word of the Python language"),
        ("json", "Python's own module"),
        ("torch", "would hide the package"),
        ("scikit-learn", "would hide the package"),
        ("sklearn", "would hide the package"),
        ("tests", "would hide the package"),
        ("trainyard", "would hide the package"),
    ],
)
def test_a_name_that_would_not_work_is_refused(name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rename.main([name]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from shop.task import Task", "from app.task import Task"),
        ("import shop", "import app"),
        ('patch("shop.task.loss")', 'patch("app.task.loss")'),
        ("`src/shop/task.py`", "`src/app/task.py`"),
        ("from workshop import shop", "from workshop import shop"),
        ("data.path=sqlite:shop.db, a shop", "data.path=sqlite:shop.db, a shop"),
    ],
)
def test_an_owners_name_is_replaced_only_where_it_is_the_package(before: str, after: str) -> None:
    assert rename.renamed(before, "shop", "app") == after
