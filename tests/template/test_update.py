"""scripts/update.sh brings a newer version into a renamed clone: what the owner made of it stays, the library is ours.

The versions are made here, from the files as they are: one that was cloned, ``NEXT`` and ``LAST``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from clones import commit, copy, git, run

from trainyard.base.version import VERSION

NEXT, LAST = "98.0.0", "99.0.0"
PACKAGE = "src/zoo_shop"
LIBRARY = ("src/trainyard", "tests/trainyard")
EDITS = {
    "models": (f"{PACKAGE}/__init__.py", "    models={\n", '    models={\n        "tiny": ".models.tiny:Tiny",\n'),
    "loss": (f"{PACKAGE}/task.py", "return self.head.loss(", "return 2 * self.head.loss("),
    "source": (f"{PACKAGE}/__init__.py", '"sqlite": ".data:read_sqlite"', '"shop": ".data:read_sqlite"'),
    "metric": (f"{PACKAGE}/metrics.py", "", "\n\ndef worst(logits: Tensor, labels: Tensor) -> int:\n    return 0\n"),
    "readme": ("README.md", "What it does, in a sentence or two", "It knows animals"),
    "config": ("configs/digits_resnet.yaml", "  lr: 0.1 ", "  lr: 0.05"),
    "ci": (".github/workflows/ci.yml", "timeout-minutes: 45", "timeout-minutes: 60"),
    "script": ("scripts/train.sh", "set -euo pipefail\n", "set -euo pipefail\nexport SHOP=zoo\n"),
    "dependency": ("pyproject.toml", '["trainyard[serve]"]', '["shop>=1", "trainyard[serve]"]'),
}  # fmt: skip
"""An owner's: in which file, what was there (nothing: at its end), and what is there now."""
TINY = '''"""Small enough for an old phone."""

from typing import Literal

from .resnet import ResNetConfig


class Tiny(ResNetConfig):
    kind: Literal["tiny"]
'''


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1) if old else text + new)


def release(folder: Path, version: str) -> None:
    """Another version: each of 30 of the owner's files is changed in a place, and so are library, pages and a lock."""
    changed = [
        *sorted(folder.glob("src/my_project/**/*.py")),
        *sorted(folder.glob("configs/*.yaml")),
        *sorted(folder.glob("tests/test_*.py")),
        *(folder / name for name in ("Dockerfile", "CONTRIBUTING.md", "scripts/setup.sh", "scripts/serve.sh")),
    ]
    assert len(changed) >= 30
    for file in changed:
        if file.name == "metrics.py":  # to which the owner appends
            edit(file, "Metrics of yours", f"Metrics of yours (since {version})")
        elif file.suffix == ".py":
            edit(file, "", f'\nSINCE_{version[:2]} = "{version}"\n')
        else:
            edit(file, "", f"# since {version}\n")
    library = folder / "src/trainyard/base/version.py"
    library.write_text(re.sub(r'VERSION = ".*"', f'VERSION = "{version}"', library.read_text()))
    edit(folder / "configs/schema.json", '"title": "', f'"title": "Since {version}: ')
    edit(folder / "CHANGELOG.md", "## [", f"## [{version}] - 2030-01-01\n\n- Wonders of {version}.\n\n## [")
    edit(folder / "README.md", "", f"\nThe README of {version}.\n")
    edit(folder / "docs/data.md", "", f"\nThe page of {version}.\n")
    edit(folder / "pyproject.toml", '"mypy>=1.15"', f'"mypy>=1.15",\n    "since{version[:2]}"')
    edit(folder / "requirements.lock", "aiohttp==", f"aaa-new=={version} \\\n    --hash=sha256:00\naiohttp==")
    (folder / "docs" / f"new-{version}.md").write_text("# New\n")
    (folder / "serving" / "logo.bin").write_bytes(bytes(range(256)) + version.encode())
    (folder / "scripts" / "serve.sh").chmod(0o755)
    commit(folder, version)
    git("tag", "--annotate", f"v{version}", "--message", version, cwd=folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainyard's repository with three versions; don't change it."""
    folder = copy(tmp_path_factory.mktemp("source"))
    text = (folder / "CHANGELOG.md").read_text()
    (folder / "CHANGELOG.md").write_text(re.sub(r"(?s)## \[Unreleased\].*?(?=## \[\d)", "", text))
    commit(folder, VERSION)
    git("tag", f"v{VERSION}", cwd=folder)
    release(folder, NEXT)
    release(folder, LAST)
    git("tag", "v99.1.0rc1", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def renamed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the first version that was renamed and committed; don't change it."""
    folder = tmp_path_factory.mktemp("renamed")
    git("clone", "--quiet", "--no-tags", "--shared", str(source), str(folder), cwd=source)
    git("checkout", "--quiet", "-B", "main", f"{git('rev-parse', f'v{VERSION}', cwd=source).strip()}", cwd=folder)
    rename(folder, "zoo-shop")
    return folder


@pytest.fixture
def clone(renamed: Path, tmp_path: Path) -> Path:
    """A fresh copy of it, to be edited."""
    folder = tmp_path / "clone"
    git("clone", "--quiet", "--shared", str(renamed), str(folder), cwd=tmp_path)
    return folder


def rename(folder: Path, name: str) -> None:
    renaming = run("bash", "scripts/rename.sh", name, cwd=folder, PYTHON=sys.executable)
    assert renaming.returncode == 0, renaming.stderr
    commit(folder, f"Rename to {name}")


def make_edits(folder: Path) -> None:
    for name, old, new in EDITS.values():
        edit(folder / name, old, new)
    (folder / PACKAGE / "models/tiny.py").write_text(TINY)
    (folder / "docs/own.md").write_text("# A page of the owner's\n")
    commit(folder, "Edit")


def update(folder: Path, *arguments: str, code: int = 0, **more: str) -> str:
    """What it says, on both streams."""
    command = ("bash", "scripts/update.sh", *arguments)
    result = run(*command, cwd=folder, **{"PYTHON": sys.executable, "PATH": os.environ["PATH"]} | more)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def assert_library_is(folder: Path, source: Path, version: str) -> None:
    for path in LIBRARY:
        expected = git("rev-parse", f"v{version}:{path}", cwd=source)
        assert git("write-tree", f"--prefix={path}/", cwd=folder) == expected
    record = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["trainyard"]
    assert record["version"] == version
    assert record["tree"] == git("rev-parse", f"v{version}:src/trainyard", cwd=source).strip()
    assert Path(record["source"]) == source
    assert record["package"] == PACKAGE.removeprefix("src/")


def assert_untouched(folder: Path) -> None:
    """Neither files nor index, refs or worktrees differ from what was committed."""
    assert git("status", "--porcelain", cwd=folder) == ""
    assert "trainyard" not in git("for-each-ref", cwd=folder)
    assert len(git("worktree", "list", cwd=folder).splitlines()) == 1


def test_edits_are_kept_and_the_rest_is_new(clone: Path, source: Path) -> None:
    make_edits(clone)
    head = git("rev-parse", "HEAD", cwd=clone)

    said = update(clone, NEXT)

    assert git("rev-parse", "HEAD", cwd=clone) == head  # nothing is committed
    assert git("diff", "--name-only", cwd=clone) == ""  # and all is staged
    for name, _, new in EDITS.values():
        assert new in (clone / name).read_text()
    assert (clone / PACKAGE / "models/tiny.py").read_text() == TINY
    assert (clone / "docs/own.md").is_file()
    assert_library_is(clone, source, NEXT)
    owners = (f"{PACKAGE}/task.py", f"{PACKAGE}/__init__.py", f"{PACKAGE}/metrics.py", "configs/digits_resnet.yaml")
    ours = ("Dockerfile", "docs/trainyard.md", "docs/data.md", "docs/changelog.md", "requirements.lock")
    for name in owners + ours:
        assert NEXT in (clone / name).read_text(), name
    assert not (clone / "tests/template").exists()
    assert not (clone / "CHANGELOG.md").exists()
    lock = git("rev-parse", f"v{NEXT}:requirements.lock", cwd=source)
    assert git("rev-parse", ":requirements.lock", cwd=clone) == lock, "each byte of it, where it wasn't edited"
    assert (clone / "serving/logo.bin").read_bytes().startswith(bytes(range(256)))
    assert f"Wonders of {NEXT}" in said
    assert f"Wonders of {LAST}" not in said
    assert "conflict" not in said
    # What the owner's first check would say; all of his tests pass below.
    lint = run(sys.executable, "-m", "ruff", "check", "src", "tests", cwd=clone)
    assert lint.returncode == 0, lint.stdout
    check_project(clone, "tests/test_project.py")


def check_project(folder: Path, *tests: str) -> None:
    command = [sys.executable, "-m", "pytest", "-x", *tests]
    result = run(*command, cwd=folder, PYTHONPATH=str(folder / "src"), TRAINYARD_PROJECT="zoo_shop")
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.slow
def test_the_owners_tests_pass_after_an_update(clone: Path) -> None:
    # Not the loss, which a test holds to its formula, nor the removed source.
    for name in ("models", "metric", "config", "script"):
        edit(clone / EDITS[name][0], *EDITS[name][1:])
    (clone / PACKAGE / "models/tiny.py").write_text(TINY)
    command = [sys.executable, "-m", "trainyard", "config", "--schema"]
    made = run(*command, cwd=clone, PYTHONPATH=str(clone / "src"), TRAINYARD_PROJECT="zoo_shop")
    (clone / "configs/schema.json").write_text(made.stdout)
    commit(clone, "Edit")
    # Its schema is made of the merged files, for ours has another title: a test of the owner's compares it.
    set_up(clone, f'TRAINYARD_PROJECT=zoo_shop exec {sys.executable} "$@"')
    update(clone)
    # But for the end to end, which test_rename.py passes in a renamed clone: it takes minutes.
    tests = {str(path) for path in (clone / "tests").glob("test_*.py")} - {str(clone / "tests/test_end_to_end.py")}
    check_project(clone, *sorted(tests))


def test_an_edit_at_the_very_place_is_a_conflict_once(clone: Path, source: Path) -> None:
    config = clone / "configs/digits_resnet.yaml"
    edit(config, "", "# mine\n")
    edit(clone / "pyproject.toml", '"mypy>=1.15"', '"mypy>=1.16"')
    commit(clone, "Edit")

    said = update(clone, NEXT, code=3, GIT_CONFIG_COUNT="0")

    named = re.findall(r"(?m)^  conflict +(\S+)$", said)
    assert sorted(named) == ["configs/digits_resnet.yaml", "pyproject.toml"]
    assert f"<<<<<<< yours\n# mine\n=======\n# since {NEXT}\n>>>>>>> v{NEXT}\n" in config.read_text()
    assert git("diff", "--name-only", "--diff-filter=U", cwd=clone).split() == sorted(named)
    assert run("git", "commit", "--message", "Too early", cwd=clone).returncode != 0

    for path in named:  # both stay
        text = (clone / path).read_text()
        (clone / path).write_text(re.sub(r"(?m)^(<<<<<<<|=======|>>>>>>>).*\n", "", text))
    edit(clone / "pyproject.toml", '    "mypy>=1.16",\n', "")
    commit(clone, f"Update to {NEXT}")
    assert_library_is(clone, source, NEXT)
    update(clone, LAST)
    assert config.read_text().endswith(f"# mine\n# since {NEXT}\n# since {LAST}\n")
    assert_library_is(clone, source, LAST)


def test_moved_and_deleted_files_and_a_second_name(clone: Path, source: Path) -> None:
    rename(clone, "app")
    git("mv", "src/app/task.py", "src/app/job.py", cwd=clone)
    git("rm", "--quiet", "src/app/models/rnn.py", "scripts/demo.sh", cwd=clone)
    edit(clone / "docs/exports.md", "", "A line of the owner's.\n")
    odd = clone / "configs" / "été 1.yaml"
    odd.write_text("# mine\n")
    (clone / "configs/link.yaml").symlink_to(odd.name)
    commit(clone, "Edit")

    said = update(clone, LAST)  # two versions at once

    assert f'SINCE_99 = "{LAST}"' in (clone / "src/app/job.py").read_text()
    assert not (clone / "src/app/task.py").exists()
    assert not (clone / "src/app/models/rnn.py").exists()
    assert re.search(r"(?m)^  deleted +src/app/models/rnn.py ", said)
    assert re.search(r"(?m)^  replaced +docs/exports.md ", said)
    assert "demo.sh" not in said  # that one didn't change
    assert "A line" not in (clone / "docs/exports.md").read_text()
    assert f"Wonders of {NEXT}" in said
    assert f"Wonders of {LAST}" in said
    assert (odd.read_text(), (clone / "configs/link.yaml").readlink()) == ("# mine\n", Path(odd.name))
    record = tomllib.loads((clone / "pyproject.toml").read_text())["tool"]["trainyard"]
    assert (record["package"], record["version"]) == ("app", LAST)
    # No word of an earlier name came with it.
    assert run("git", "grep", "-lw", "my_project", "--", "src/app", "tests/test_*.py", cwd=clone).stdout == ""


def test_a_version_back_and_the_same_one(clone: Path, source: Path) -> None:
    make_edits(clone)
    assert f"v{VERSION} already" in update(clone, VERSION)
    assert_untouched(clone)
    assert f"v{LAST}" in update(clone)  # the newest, but for a candidate
    commit(clone, "Update")

    said = update(clone, f"v{NEXT}", "--from", source.as_uri())  # for once: the record has the source still

    assert "Wonders" not in said
    assert_library_is(clone, source, NEXT)
    for name, _, new in EDITS.values():
        assert new in (clone / name).read_text()
    assert f"SINCE_{LAST[:2]}" not in (clone / PACKAGE / "task.py").read_text()


def test_an_edited_library_is_refused_or_merged(clone: Path) -> None:
    edit(clone / "src/trainyard/base/cpu.py", "", "# mine\n")
    (clone / "tests/trainyard/test_mine.py").write_text("")
    commit(clone, "Edit the library")

    said = update(clone, code=3)

    assert re.findall(r"(?m)^  (\S+)$", said) == ["src/trainyard/base/cpu.py", "tests/trainyard/test_mine.py"]
    assert_untouched(clone)
    update(clone, "--keep-library")
    assert (clone / "src/trainyard/base/cpu.py").read_text().endswith("# mine\n")
    assert f'"{LAST}"' in (clone / "src/trainyard/base/version.py").read_text()


@pytest.mark.parametrize("has_uv", [True, False])
def test_a_lock_of_the_owners_is_solved_anew(has_uv: bool, clone: Path, tmp_path: Path) -> None:
    edit(clone / "requirements.lock", "", "zoo==1 \\\n    --hash=sha256:11\n    # via mine\n")
    commit(clone, "Lock")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "git"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    if has_uv:  # it starts from what is there: our new package and the owner's
        uv = tools / "uv"
        uv.write_text('#!/bin/bash\necho "# solved" >>"$4"\n')
        uv.chmod(0o755)

    said = update(clone, NEXT, code=0 if has_uv else 3, PATH=str(tools))

    lock = (clone / "requirements.lock").read_text()
    assert f"aaa-new=={NEXT} \\\n    --hash=sha256:00\n" in lock
    assert "zoo==1 \\\n    --hash=sha256:11\n" in lock
    assert "<<<<" not in lock
    assert ("# solved" in lock) == has_uv
    assert ("scripts/lock.sh" in said.partition("to do")[2]) == (not has_uv)


def test_files_without_a_history_from_a_bare_path(source: Path, tmp_path: Path) -> None:
    folder, bare = tmp_path / "unzipped", tmp_path / "bare.git"
    git("clone", "--quiet", "--bare", str(source), str(bare), cwd=tmp_path)
    folder.mkdir()
    archive = tmp_path / "first.tar"
    git("archive", "--output", str(archive), f"v{VERSION}", cwd=source)
    subprocess.run(["tar", "xf", archive], cwd=folder, check=True)
    rename_result = run("bash", "scripts/rename.sh", "zoo-shop", cwd=folder, PYTHON=sys.executable)
    assert rename_result.returncode == 0
    assert "commit" in update(folder, code=2)
    commit(folder, "Begin")
    make_edits(folder)
    assert "--from" in update(folder, code=2)

    update(folder, "--from", "../bare.git", GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere")

    for name, _, new in EDITS.values():
        assert new in (folder / name).read_text()
    tree = git("rev-parse", f"v{LAST}:src/trainyard", cwd=source)
    assert git("write-tree", "--prefix=src/trainyard/", cwd=folder) == tree
    record = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["trainyard"]
    assert "source" not in record, "a path is this machine's alone"
    commit(folder, "Update")

    address = f"file://me:secret@{bare}"
    assert "recorded" in update(folder, NEXT, "--from", address)

    record = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["trainyard"]
    assert (record["source"], record["version"]) == (f"file://{bare}", NEXT)


def take_over(folder: Path, kind: str, place: Path) -> Path:
    """The history in a repository of another hash, as the refusal has it."""
    git("init", "--quiet", "--initial-branch=main", f"--object-format={kind}", str(place), cwd=folder)
    exported = subprocess.run(["git", "fast-export", "--all"], cwd=folder, capture_output=True, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=place, input=exported.stdout, check=True)
    git("checkout", "--quiet", "main", cwd=place)
    return place


def test_a_repository_with_another_hash(renamed: Path, source: Path, tmp_path: Path) -> None:
    folder = take_over(renamed, "sha256", tmp_path / "newer")
    assert len(git("rev-parse", "HEAD", cwd=folder).strip()) == 64
    said = update(folder, code=2)
    assert "of sha1" in said
    assert "git init --object-format=sha1 ../NEW && git fast-export" in said
    assert_untouched(folder)

    # Of the same hash, here where the record has the id that it would have in the other.
    upstream = take_over(source, "sha256", tmp_path / "upstream")
    update(folder, NEXT, "--from", str(upstream))
    tree = git("rev-parse", f"v{NEXT}:src/trainyard", cwd=upstream)
    assert git("write-tree", "--prefix=src/trainyard/", cwd=folder) == tree
    commit(folder, "Update")
    edit(folder / "README.md", "", "Mine.\n")
    edit(folder / "configs/digits_resnet.yaml", "", "# mine\n")
    commit(folder, "Edit")
    assert "conflict" in update(folder, LAST, "--from", str(upstream), code=3)
    assert git("diff", "--name-only", "--diff-filter=U", cwd=folder) == "configs/digits_resnet.yaml\n"
    assert (folder / "README.md").read_text().endswith("Mine.\n")


def set_up(folder: Path, script: str) -> None:
    """A stand-in for the environment's Python."""
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


@pytest.mark.parametrize("is_set_up", [True, False])
def test_the_schema_is_made_anew_where_both_have_another(is_set_up: bool, clone: Path) -> None:
    edit(clone / EDITS["models"][0], *EDITS["models"][1:])
    edit(clone / "configs/schema.json", '"title": "', '"title": "Mine: ')
    commit(clone, "Add a model")
    own = (clone / "configs/schema.json").read_text()
    if is_set_up:  # of the merged files, in which the owner's model is as well as our change
        init = "$PYTHONPATH/zoo_shop/__init__.py"
        set_up(clone, f'case "$*" in *--schema) grep -q "Tiny" {init} && grep SINCE {init};; esac')

    said = update(clone, NEXT)

    written = (clone / "configs/schema.json").read_text()
    assert ("trainyard config --schema >" in said) == (not is_set_up)
    assert written == (f'SINCE_98 = "{NEXT}"\n' if is_set_up else own)


def test_a_clone_from_between_two_versions(source: Path, tmp_path: Path) -> None:
    upstream, folder = tmp_path / "upstream", tmp_path / "clone"
    git("clone", "--quiet", "--shared", str(source), str(upstream), cwd=tmp_path)
    git("checkout", "--quiet", "-B", "main", f"v{NEXT}", cwd=upstream)
    edit(upstream / "src/trainyard/base/cpu.py", "", "# between\n")
    edit(upstream / "src/my_project/train.py", "", "BETWEEN = 1\n")
    commit(upstream, "Between")
    git("clone", "--quiet", "--depth=1", f"file://{upstream}", str(folder), cwd=tmp_path)
    rename(folder, "zoo-shop")
    release(upstream, "98.1.0")

    said = update(folder, "98.1.0")

    assert "conflict" not in said
    assert (folder / PACKAGE / "train.py").read_text().count("BETWEEN") == 1
    assert git("rev-parse", "--is-shallow-repository", cwd=folder) == "true\n"


def test_what_git_is_told_elsewhere_changes_nothing(clone: Path, source: Path, tmp_path: Path) -> None:
    hook = clone / ".git/hooks/post-checkout"
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    settings = """
[user]
    useConfigOnly = true
[commit]
    gpgsign = true
[core]
    autocrlf = true
[merge]
    conflictStyle = diff3
    renames = false
[diff]
    renames = false
[rerere]
    enabled = true
[submodule]
    recurse = true
"""
    home = tmp_path / "home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.lock\n*.yaml\n")
    (home / ".gitconfig").write_text(settings)
    make_edits(clone)
    git("mv", f"{PACKAGE}/train.py", f"{PACKAGE}/run.py", cwd=clone)
    commit(clone, "Move")

    update(clone, NEXT, HOME=str(home))

    assert_library_is(clone, source, NEXT)
    assert f"SINCE_{NEXT[:2]}" in (clone / PACKAGE / "run.py").read_text()
    assert b"\r" not in (clone / "scripts/setup.sh").read_bytes()
    assert not (clone / "hooked").exists()


def test_what_is_refused_before_anything_is_touched(clone: Path, source: Path, tmp_path: Path) -> None:
    assert "rename.sh" in update(source, code=2)
    edit(clone / "README.md", "", "x")
    assert "uncommitted" in update(clone, code=2)
    git("reset", "--quiet", "--hard", cwd=clone)
    assert "no v7.0.0" in update(clone, "7.0.0", code=2)
    assert "--from" in update(clone, "--from", str(tmp_path / "nothing"), code=2)
    assert "renamed project" in update(clone, "9.9.9", "--from", str(own_release(clone, tmp_path)), code=2)
    assert_untouched(clone)
    for name in (f"docs/new-{NEXT}.md", "serving/logo.bin"):  # not under version control, or ignored
        (clone / name).write_text("the owner's")
        (clone / ".git/info/exclude").write_text("*.bin\n")
        said = update(clone, NEXT, code=3)
        assert name in said
        assert (clone / name).read_text() == "the owner's"
        (clone / name).unlink()
    assert_untouched(clone)
    inside = tmp_path / "bigger" / "project"
    inside.parent.mkdir()
    shutil.copytree(clone, inside, ignore=shutil.ignore_patterns(".git"))
    commit(inside.parent, "A repository of several projects")
    assert "repository of the project's own" in update(inside, code=2)


def own_release(clone: Path, folder: Path) -> Path:
    """A project that was renamed and has a tag of its own."""
    git("clone", "--quiet", "--shared", str(clone), str(folder / "own"), cwd=folder)
    git("tag", "v9.9.9", cwd=folder / "own")
    return folder / "own"
