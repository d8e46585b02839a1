"""scripts/vendor.sh pins the library's wheel in a renamed clone, set-up installs that one alone, the folder comes back.

The repositories are made here, of the files as they are, without the fixtures of releases.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from trainyard.base.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
WHEEL = f"vendor/trainyard-{VERSION}-py3-none-any.whl"
LIBRARY = ("src/trainyard", "tests/trainyard", "benchmarks")
LEFT_OUT = ("tests/template/",)
NEXT = "9.9.0"


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    # Without git's own variables, which point at the outer repository inside a commit hook.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHONPATH"))}
    environment = kept | {"TRAINYARD_PYTHON": sys.executable, "PYTHON": sys.executable} | more
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def git(*arguments: str, cwd: Path) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=false")
    result = run("git", *identity, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", message, cwd=folder)


def vendor(folder: Path, *words: str) -> str:
    result = run("bash", "scripts/vendor.sh", *words, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(folder: Path, *words: str) -> tuple[int, str]:
    """The exit code and the sentence of a call that must change nothing."""
    before = git("status", "--porcelain", cwd=folder)
    result = run("bash", "scripts/vendor.sh", *words, cwd=folder)
    assert result.returncode
    assert git("status", "--porcelain", cwd=folder) == before
    return result.returncode, result.stderr


def record(folder: Path) -> dict[str, str]:
    tables = tomllib.loads((folder / "pyproject.toml").read_text())
    found: dict[str, str] = tables["tool"]["trainyard"]
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the template with two releases: the present one, and one whose library says another number."""
    if run("git", "rev-parse", "--is-inside-work-tree", cwd=ROOT).returncode:
        pytest.skip("not a git work tree")
    folder = tmp_path_factory.mktemp("source")
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git("init", "--quiet", cwd=folder)
    commit(folder, "All")
    git("tag", "--annotate", "--message", VERSION, f"v{VERSION}", cwd=folder)
    version = folder / "src/trainyard/base/version.py"
    version.write_text(version.read_text().replace(VERSION, NEXT))
    (folder / "src/trainyard/base/new.py").touch()
    (folder / "docs/new.md").touch()
    lock = folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("\nhypothesis==", "\nhypothesis==9.") + "zzz-new==1\n    # via zoo\n")
    with (folder / "CONTRIBUTING.md").open("a") as file:
        file.write("\nOne more line.\n")
    commit(folder, NEXT)
    git("tag", f"v{NEXT}", cwd=folder)
    git("checkout", "--quiet", f"v{VERSION}", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def renamed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with its owner's name, and a page of his own among ours; don't change it."""
    folder = tmp_path_factory.mktemp("clones") / "renamed"
    git("clone", "--quiet", str(source), str(folder), cwd=source)
    assert run("bash", "scripts/rename.sh", "zoo-shop", cwd=folder).returncode == 0
    (folder / "docs/shop.md").write_text("# Shop\n")
    commit(folder, "Rename")
    return folder


@pytest.fixture(scope="module")
def pinned(renamed: Path) -> Path:
    """Such a clone with the library's wheel in the place of its folder; don't change it."""
    folder = renamed.parent / "pinned"
    git("clone", "--quiet", str(renamed), str(folder), cwd=renamed)
    cache = folder / "src/trainyard/base/__pycache__"
    cache.mkdir()
    (cache / "left.pyc").touch()
    vendor(folder, "off")
    assert not git("diff", "--name-only", cwd=folder), "all of it is staged"
    commit(folder, "Pin")
    return folder


def clone(folder: Path, place: Path) -> Path:
    git("clone", "--quiet", str(folder), str(place), cwd=folder)
    return place


def test_the_wheel_takes_the_place_of_all_that_is_the_librarys(renamed: Path, pinned: Path) -> None:
    assert not [folder for folder in LIBRARY if (pinned / folder).exists()], "leftovers of Python go, too"
    assert [page.name for page in (pinned / "docs").iterdir()] == ["shop.md"]
    changed = set(git("diff", "--name-only", "HEAD~1", "HEAD", cwd=pinned).splitlines())
    assert {name for name in changed if not name.startswith((*LIBRARY, "docs/"))} == {"pyproject.toml", WHEEL}
    before, after = record(renamed), record(pinned)
    assert {**before, "wheel": WHEEL, "sha256": after["sha256"]} == after
    lock_source = tomllib.loads((pinned / "pyproject.toml").read_text())["tool"]["uv"]["sources"]
    assert lock_source == {"trainyard": {"path": WHEEL}}

    wheel = zipfile.ZipFile(pinned / WHEEL).namelist()
    tracked = git("ls-files", "--", "src/trainyard", cwd=renamed).splitlines()
    shipped = {name.removeprefix("src/") for name in tracked} - {"trainyard/LICENSE", "trainyard/pyproject.toml"}
    assert {name for name in wheel if ".dist-info/" not in name} == shipped


def test_the_pages_that_go_are_all_that_are_here(renamed: Path) -> None:
    """``PAGES`` of the script, which can't look: by then the owner's own pages lie beside ours."""
    script = (ROOT / "scripts/vendor.py").read_text()
    known = set(re.findall(r'"([\w.-]+)"', script[script.index("PAGES = ") : script.index('"""And which')]))
    assert {page.name for page in (renamed / "docs").iterdir()} - {"shop.md"} <= known


def test_the_same_library_gives_the_same_bytes(source: Path, pinned: Path, tmp_path: Path) -> None:
    """Also from another commit, in another folder, with other rights for new files."""
    command = f"umask 077 && bash scripts/vendor.sh build v{VERSION} '{tmp_path}/here and there'"
    built = run("bash", "-c", command, cwd=source)
    assert built.returncode == 0, built.stderr
    assert Path(built.stdout.strip()).read_bytes() == (pinned / WHEEL).read_bytes()


def test_the_folder_comes_back_as_it_was_tagged(source: Path, renamed: Path, pinned: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "back")
    vendor(folder, "on")
    assert not git("diff", "--name-only", cwd=folder)
    commit(folder, "Unpin")
    # The page of the owner's stayed, and all else is as before the pin, byte by byte.
    assert git("rev-parse", "HEAD^{tree}", cwd=folder) == git("rev-parse", "HEAD^{tree}", cwd=renamed)
    assert not git("diff", "--name-only", f"v{VERSION}", "HEAD", "--", *LIBRARY, cwd=folder)
    assert "nothing to do" in vendor(folder, "on")


def test_the_folder_comes_back_from_a_named_place(source: Path, pinned: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "back")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(f'source = "{source}"', 'source = "nowhere"'))
    (folder / "docs/data.md").write_text("# Our data\n")
    commit(folder, "Lose the source")
    code, complaint = refused(folder, "on")
    assert (code, "nowhere doesn't give" in complaint, "--from" in complaint) == (2, True, True)
    code, complaint = refused(folder, "on", "--from", str(source))
    assert (code, "docs/data.md" in complaint) == (3, True)
    git("rm", "--quiet", "docs/data.md", cwd=folder)
    commit(folder, "Move it")
    vendor(folder, "on", "--from", str(source))
    assert (folder / "src/trainyard/__init__.py").is_file()


def test_the_pin_moves_beside_staged_changes(source: Path, pinned: Path, tmp_path: Path) -> None:
    """As scripts/update.sh calls it, which has merged the owner's files by then."""
    folder = clone(pinned, tmp_path / "moved")
    git("fetch", "--quiet", str(source), f"refs/tags/v{NEXT}:refs/trainyard/v{NEXT}", cwd=folder)
    (folder / "README.md").write_text("# Merged\n")
    git("add", "README.md", cwd=folder)

    vendor(folder, "pin", f"refs/trainyard/v{NEXT}")

    moved = WHEEL.replace(VERSION, NEXT)
    staged = set(git("diff", "--cached", "--no-renames", "--name-only", cwd=folder).splitlines())
    assert staged == {"README.md", "pyproject.toml", WHEEL, moved}
    assert not git("status", "--porcelain", "--", "src", "tests", "benchmarks", "docs", cwd=folder)
    assert [path.name for path in (folder / "vendor").iterdir()] == [Path(moved).name]
    after, tree = record(folder), git("rev-parse", f"refs/trainyard/v{NEXT}:src/trainyard", cwd=folder)
    assert (after["version"], after["wheel"], after["tree"]) == (NEXT, moved, tree)
    assert after["sha256"] != record(pinned)["sha256"]
    assert after["source"] == record(pinned)["source"]


def relock(folder: Path) -> None:
    """As scripts/lock.sh does beside a wheel: without what only the library's tests need, and their packages."""
    lock = folder / "requirements.lock"
    left = re.sub(r"(?m)^(hypothesis|sortedcontainers)==.*\n(?: .*\n)*", "", lock.read_text())
    assert left != lock.read_text()
    lock.write_text(left)
    commit(folder, "Lock")


def test_an_update_moves_the_pin_and_brings_nothing_else_of_the_library(pinned: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "updated")
    (folder / "README.md").write_text("# Ours\n")
    commit(folder, "Edit")
    relock(folder)
    updated = run("bash", "scripts/update.sh", cwd=folder)
    assert updated.returncode == 0, updated.stderr + updated.stdout
    staged = set(git("diff", "--cached", "--no-renames", "--name-only", cwd=folder).splitlines())
    assert staged == {
        "CONTRIBUTING.md",
        "pyproject.toml",
        "requirements.lock",
        WHEEL,
        WHEEL.replace(VERSION, NEXT),
    }
    lock = (folder / "requirements.lock").read_text()
    assert lock.endswith("zzz-new==1\n    # via zoo\n")
    assert "hypothesis" not in lock, "the library's tests, which need it, aren't here"
    assert not git("diff", "--name-only", cwd=folder)
    assert record(folder)["version"] == NEXT


def test_a_commit_can_be_pinned_in_place_of_a_file(source: Path, renamed: Path, tmp_path: Path) -> None:
    folder = clone(renamed, tmp_path / "by commit")
    vendor(folder, "off", "--git")
    commit(folder, "Pin")
    here = git("rev-parse", f"v{VERSION}^{{commit}}", cwd=source)
    assert record(folder)["wheel"] == f"git+{source.as_uri()}@{here}#subdirectory=src/trainyard"
    assert not (folder / "vendor").exists()
    lock_source = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["uv"]["sources"]["trainyard"]
    assert lock_source == {"git": source.as_uri(), "rev": here, "subdirectory": "src/trainyard"}

    git("fetch", "--quiet", str(source), f"refs/tags/v{NEXT}:refs/trainyard/v{NEXT}", cwd=folder)
    vendor(folder, "pin", f"refs/trainyard/v{NEXT}")
    assert git("rev-parse", f"v{NEXT}^{{commit}}", cwd=source) in record(folder)["wheel"]
    commit(folder, "Move")
    vendor(folder, "on")
    assert NEXT in (folder / "src/trainyard/base/version.py").read_text()
    assert {"wheel", "sha256"}.isdisjoint(record(folder))


def test_what_would_not_be_a_pin_of_a_release_is_refused(source: Path, renamed: Path, tmp_path: Path) -> None:
    code, complaint = refused(source, "off")
    assert (code, "scripts/rename.sh" in complaint) == (2, True)
    folder = clone(renamed, tmp_path / "edited")
    code, complaint = refused(folder, "pin", "HEAD")
    assert (code, "vendor.sh off" in complaint) == (2, True)
    (folder / "src/trainyard/base/cpu.py").write_text("")
    code, complaint = refused(folder, "off")
    assert (code, "uncommitted" in complaint) == (2, True)
    commit(folder, "Edit the library")
    code, complaint = refused(folder, "off")
    assert (code, complaint.splitlines()[1:]) == (3, ["  base/cpu.py"])


def test_a_repository_of_the_newer_hash(renamed: Path, source: Path, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    git("init", "--quiet", "--object-format=sha256", str(upstream), cwd=tmp_path)
    exported = subprocess.run(["git", "fast-export", "--all"], cwd=source, capture_output=True, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=upstream, input=exported.stdout, check=True)
    git("checkout", "--quiet", "--detach", f"v{VERSION}", cwd=upstream)
    folder = clone(upstream, tmp_path / "newer")
    assert run("bash", "scripts/rename.sh", "zoo-shop", cwd=folder).returncode == 0
    commit(folder, "Rename")
    before = git("rev-parse", "HEAD^{tree}", cwd=folder)
    for word in ("off", "on"):
        vendor(folder, word)
        commit(folder, word)
    assert git("rev-parse", "HEAD^{tree}", cwd=folder) == before

    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(record(folder)["tree"], record(renamed)["tree"]))
    commit(folder, "Record it as the older hash has it")
    code, complaint = refused(folder, "off")
    assert (code, "another hash" in complaint, complaint.count("\n")) == (3, True, 1)


@pytest.mark.parametrize(
    ("shipped", "edited"),
    [
        ('trainyard = { path = "src/trainyard" }\n', '[tool.uv.sources.trainyard]\npath = "src/trainyard"\n'),
        ('\npackage = "', '\n# a remark\npackage = "'),
    ],
    ids=["a table of its own", "a remark in the record"],
)
def test_what_can_not_be_rewritten_is_refused(renamed: Path, tmp_path: Path, shipped: str, edited: str) -> None:
    folder = clone(renamed, tmp_path / "edited")
    pyproject = folder / "pyproject.toml"
    assert shipped in pyproject.read_text()
    pyproject.write_text(pyproject.read_text().replace(shipped, edited))
    commit(folder, "Write it in another way")
    code, complaint = refused(folder, "off")
    assert (code, "not as it was shipped" in complaint) == (2, True)


def test_an_editor_may_take_the_last_newline(renamed: Path, tmp_path: Path) -> None:
    folder = clone(renamed, tmp_path / "edited")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().rstrip())
    commit(folder, "Save it")
    vendor(folder, "off")
    assert record(folder) == {**record(renamed), "wheel": WHEEL, "sha256": record(folder)["sha256"]}


def test_a_pin_is_not_moved_into_a_conflict(pinned: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "conflict")
    code, complaint = refused(folder, "pin", "HEAD")
    assert (code, "no commit of a Trainyard" in complaint) == (2, True)
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(f"<<<<<<< yours\n{pyproject.read_text()}")
    code, complaint = refused(folder, "pin", "HEAD~1")
    assert (code, "pyproject.toml" in complaint) == (3, True)


def test_set_up_installs_no_other_bytes(pinned: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "other")
    with (folder / WHEEL).open("ab") as file:
        file.write(b"\0")
    other = run("bash", "scripts/setup.sh", cwd=folder)
    assert (other.returncode, other.stderr.count("\n"), "other bytes" in other.stderr) == (2, 1, True)
    (folder / WHEEL).unlink()
    missing = run("bash", "scripts/setup.sh", cwd=folder)
    assert (missing.returncode, missing.stderr.count("\n"), "git checkout --" in missing.stderr) == (2, 1, True)
    assert not (folder / ".venv").exists()


def set_up(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The environment as it is here, less library and project, stands in for what the lock would install."""
    return run("bash", "scripts/setup.sh", cwd=folder, PYTHONPATH=str(site))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this environment by links, without the library and a project."""
    folder = tmp_path_factory.mktemp("site")
    for path in (Path(place) for place in sys.path if place.endswith("site-packages")):
        for entry in path.iterdir():
            if not re.match(r"(trainyard|my_project|__editable__|pip\b|.*\.pth$)", entry.name):
                (folder / entry.name).symlink_to(entry)
    return folder


def install_as_in_the_image(folder: Path, site: Path, place: Path) -> None:
    """The Dockerfile's steps for library and project, without git and an index; a second time there is no wheel."""
    for name in ("src", "serving", "scripts"):
        shutil.copytree(folder / name, place / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(folder / name, place)
    shutil.copytree(folder / "vendor", place, dirs_exist_ok=True)
    tools = place / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "sed", "mv", "cp"):
        (tools / name).symlink_to(shutil.which(name) or "")
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python").chmod(0o755)
    venv.create(place / "venv")
    command = ("bash", "scripts/container_project.sh", "venv")
    built = run(*command, cwd=place, PATH=str(tools), PYTHONPATH=str(site))
    assert built.returncode == 0, built.stderr
    (wheel,) = place.glob("venv/lib/*/site-packages/trainyard/base/version.py")
    assert NEXT in wheel.read_text()
    again = run(*command, cwd=place, PATH=str(tools), PYTHONPATH=str(site))
    assert (again.returncode, again.stderr.count("\n"), "scripts/setup.sh first" in again.stderr) == (2, 1, True)


@pytest.mark.slow
def test_a_pinned_library_is_installed_and_used(source: Path, pinned: Path, site: Path, tmp_path: Path) -> None:
    folder = clone(pinned, tmp_path / "used")
    (folder / "requirements.lock").write_text("")
    commit(folder, "Install nothing else")
    first = set_up(folder, site)
    assert first.returncode == 0, first.stderr
    assert (set_up(folder, site).stdout, git("status", "--porcelain", cwd=folder)) == ("", "")
    python = folder / ".venv/bin/python"

    def call(*words: str) -> str:
        result = run(python, *words, cwd=folder, PYTHONPATH=str(site), OMP_NUM_THREADS="1")
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout.strip()

    sizes = ["data.image_size=8", "data.limit=300", "trainer.max_epochs=1", "trainer.devices=cpu", "trainer.loggers=[]"]
    where = "import trainyard.torchserve.deployment as d; print(d.CHECKOUT); print(d.deployment_file('handler.py'))"
    checkout, handler = call("-c", where).splitlines()
    assert Path(checkout).is_relative_to(folder / ".venv"), "the library is the wheel's"
    assert Path(handler) == folder / "serving/handler.py"
    path = call("-m", "trainyard", "train", "configs/digits_resnet.yaml", *sizes).splitlines()[-1]
    call("-m", "trainyard", "export", path, "--formats", "onnx", "--gate", "0")
    picture = next((folder / path).glob("bundle/samples/golden/*.png"))
    call("-m", "trainyard", "predict", path, str(picture), "--format", "onnx")
    # The imports of the owner's files are sorted as they were when the library's folder was beside them.
    lint = run(sys.executable, "-m", "ruff", "check", cwd=folder)
    assert lint.returncode == 0, lint.stdout

    git("fetch", "--quiet", str(source), f"refs/tags/v{NEXT}:refs/trainyard/v{NEXT}", cwd=folder)
    vendor(folder, "pin", f"refs/trainyard/v{NEXT}")
    assert "done" in set_up(folder, site).stdout
    assert call("-c", "import trainyard; print(trainyard.__version__)") == NEXT

    commit(folder, "Update")
    for words in (["on"], ["off", "--git"]):
        vendor(folder, *words)
        commit(folder, " ".join(words))
    fetched = set_up(folder, site)
    assert fetched.returncode == 0, fetched.stderr
    assert git("status", "--porcelain", cwd=folder) == "", "the wheel for the image is no file of the project's"
    install_as_in_the_image(folder, site, tmp_path / "image")
    version, where = call("-c", "import trainyard; print(trainyard.__version__, trainyard.__file__)").split(" ", 1)
    assert (version, Path(where).is_relative_to(folder / ".venv")) == (NEXT, True)
