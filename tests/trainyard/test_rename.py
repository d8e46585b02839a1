"""scripts/rename.sh turns a copy of this tree into a project of another name that works."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.cli import app

ROOT = Path(__file__).resolve().parents[2]
NAME, PACKAGE = "my-project", "my_project"  # the harder case: command and package differ
OLD = "train" + "yard"  # in two pieces, so that this file survives the renaming that it tests

spec = importlib.util.spec_from_file_location("rename", ROOT / "scripts" / "rename.py")
assert spec
assert spec.loader
rename = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rename)

# Where the project has been renamed already, there is nothing to try.
pytestmark = pytest.mark.skipif(not (ROOT / "src" / OLD).is_dir(), reason="this project has a name of its own")


def environment(**more: str) -> dict[str, str]:
    """Without git's own variables, which point at the outer repository inside a commit hook."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | more


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(**more), capture_output=True, text=True, check=False)


def git(*arguments: str, cwd: Path) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=false")
    result = run("git", *identity, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A renamed repository with the files as they are here, committed or not."""
    if run("git", "rev-parse", "--is-inside-work-tree", cwd=ROOT).returncode:
        pytest.skip("not a git work tree")
    folder = tmp_path_factory.mktemp("clone")
    for relative in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        if relative and (ROOT / relative).is_file():  # not what is deleted but still in the index
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / relative, folder / relative)
    git("init", "--quiet", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "All", cwd=folder)

    (folder / "stray.txt").touch()
    dirty = run("bash", "scripts/rename.sh", NAME, cwd=folder, PYTHON=sys.executable)
    assert (dirty.returncode, dirty.stdout) == (2, "")
    assert "uncommitted" in dirty.stderr
    (folder / "stray.txt").unlink()

    result = run("bash", "scripts/rename.sh", NAME, cwd=folder, PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    git("commit", "--quiet", "--message", "Rename", cwd=folder)
    return folder


def tracked(folder: Path) -> list[Path]:
    return [folder / relative for relative in git("ls-files", "-z", cwd=folder).split("\0") if relative]


def test_nothing_of_the_old_name_is_left(clone):
    assert not [path for path in tracked(clone) if OLD in str(path.relative_to(clone)).lower()]
    assert not [path for path in tracked(clone) if OLD.encode() in path.read_bytes().lower()]
    assert git("status", "--porcelain", cwd=clone) == ""


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-serve.lock"])
def test_nothing_else_has_changed(clone, lock):
    def words(commit: str) -> str:
        text = git("show", f"{commit}:{lock}", cwd=clone)
        return re.sub(rf"{OLD}|{PACKAGE}", "NAME", text)

    assert words("HEAD") == words("HEAD~1")
    assert (clone / "scripts" / "setup.sh").stat().st_mode & 0o111


def test_the_renamed_command_answers(clone):
    pyproject = (clone / "pyproject.toml").read_text()
    assert f'name = "{NAME}"' in pyproject
    assert f'\n{NAME} = "{PACKAGE}.cli:main"\n' in pyproject
    script = f"import sys; sys.argv[0] = '{NAME}'; from {PACKAGE}.cli import main; sys.exit(main())"
    result = run(sys.executable, "-c", script, "--help", cwd=clone, PYTHONPATH=str(clone / "src"))
    assert result.returncode == 0, result.stderr
    assert NAME in result.stdout
    assert OLD not in result.stdout.lower()


def test_every_verb_is_one_that_the_renaming_knows():
    """Else a page of the renamed project would call the command by the package's name."""
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert verbs <= set(rename.VERBS.split("|"))


def test_the_renamed_command_takes_its_environment_variables(clone):
    words = ["-m", PACKAGE, "predict", "no_run"]
    result = run(sys.executable, *words, cwd=clone, PYTHONPATH=str(clone / "src"), MY_PROJECT_EXPECT="no digest")
    assert result.returncode == 2, result.stderr
    assert "no digest" in result.stderr


def test_renaming_again_does_nothing(clone):
    same = run("bash", "scripts/rename.sh", NAME, cwd=clone, PYTHON=sys.executable)
    assert (same.returncode, "already" in same.stdout) == (0, True)
    other = run("bash", "scripts/rename.sh", "another", cwd=clone, PYTHON=sys.executable)
    assert (other.returncode, "once" in other.stderr) == (2, True)
    assert git("status", "--porcelain", cwd=clone) == ""


@pytest.mark.slow
def test_the_renamed_project_passes_its_lint_and_its_fast_tests(clone):
    for command in (["check", "--fix", "--exit-zero"], ["format"], ["check", "--ignore", "E501"]):
        lint = run(sys.executable, "-m", "ruff", *command, ".", cwd=clone)
        assert lint.returncode == 0, lint.stdout
    tests = run(
        sys.executable, "-m", "pytest", "-x", "--ignore=tests/test_rename.py", cwd=clone, PYTHONPATH=str(clone / "src")
    )
    assert tests.returncode == 0, tests.stdout[-5000:]


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
    ],
)
def test_a_name_that_would_not_work_is_refused(name, reason, capsys):
    assert rename.main([name]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from {old}.core import Bundle", "from my_project.core import Bundle"),
        ("{old} train configs/a.yaml", "my-project train configs/a.yaml"),
        ("uses {old} --help", "uses my-project --help"),
        (".venv/bin/{old} predict RUN", ".venv/bin/my-project predict RUN"),
        ("python -m {old} train", "python -m my_project train"),
        ("class {camel}Error(Exception)", "class MyProjectError(Exception)"),
        ("# {camel}\n{camel} is small", "# My Project\nMyProject is small"),
        ("{upper}_PYTHON=python3", "MY_PROJECT_PYTHON=python3"),
        ('envvar="{upper}_EXPECT",', 'envvar="MY_PROJECT_EXPECT",'),
        ("{old} benchmark RUN", "my-project benchmark RUN"),
        ("pip install '{old}[serve]'", "pip install 'my-project[serve]'"),
        ("src/{old}/{old}.json", "src/my_project/my_project.json"),
        ("docker run {old}:latest", "docker run my_project:latest"),
    ],
)
def test_each_spelling_gets_its_own(before, after):
    filled = before.format(old=OLD, camel=OLD.capitalize(), upper=OLD.upper())
    assert rename.renamed(filled, NAME) == after
