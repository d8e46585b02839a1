"""scripts/release.sh in a repository made here: what takes long (the fixture, its tests, the SBOM's tool) is a stub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from trainyard.base.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
NEW = "9.0.0"
FIXTURE = f"tests/template/fixtures/{NEW}"

MAKE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
(folder / "tickets.mar").write_text("an archive")
(folder / "answers.json").write_text("{}")
"""
TEST = """
from pathlib import Path

def test_fixture():
    assert (Path(__file__).parent / "fixtures/9.0.0/answers.json").read_text() == "{}"
    assert not Path("broken").exists()
"""
ALL = """#!/bin/bash
printf '%s\\n' "$*" >ran
exec "$TRAINYARD_PYTHON" -m pytest -q tests/template/test_earlier_releases.py
"""
TOOL = """#!/bin/sh
while [ "$1" != --output-file ]; do shift; done
printf '{"metadata": {"component": {"name": "trainyard"}}, "components": []}' >"$2"
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHONPATH"))}
    names = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = kept | names | {"TRAINYARD_PYTHON": sys.executable}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def git(*arguments: str, cwd: Path) -> str:
    result = run("git", *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run("bash", "scripts/release.sh", *words, cwd=folder)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what the script reads, the last release tagged and a commit behind it; don't change it."""
    folder = tmp_path_factory.mktemp("shipped") / "template"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src/trainyard", folder / "src/trainyard", ignore=ignored)
    scripts = [f"scripts/{name}" for name in ("release.sh", "vendor.sh", "vendor.py", "update_git.py")]
    for name in (*scripts, "CHANGELOG.md", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for name, text in (
        ("requirements.lock", ""),
        ("scripts/test.sh", ALL),
        ("tests/template/fixtures/make.py", MAKE),
        ("tests/template/test_earlier_releases.py", TEST),
        (".cache/release-tools/bin/cyclonedx-py", TOOL),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name in ("scripts/test.sh", ".cache/release-tools/bin/cyclonedx-py"):
        (folder / name).chmod(0o755)
    git("init", "--quiet", "--initial-branch=main", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", "All", cwd=folder)
    git("tag", "v0.0.9", cwd=folder)
    git("tag", "v0.0.10", cwd=folder)
    git("commit", "--quiet", "--allow-empty", "--message", "More", cwd=folder)
    return folder


@pytest.fixture
def template(shipped: Path, tmp_path: Path) -> Path:
    """Such a repository of the test's own."""
    return Path(shutil.copytree(shipped, tmp_path / "template"))


def test_a_release_is_committed_tagged_and_built(template: Path) -> None:
    done = release(template, NEW, "--tested")

    assert done.returncode == 0, done.stderr + done.stdout
    assert git("rev-parse", f"v{NEW}^{{commit}}", cwd=template) == git("rev-parse", "HEAD", cwd=template)
    assert git("status", "--porcelain", cwd=template) == ""
    changed = set(git("diff", "--name-only", "HEAD~1", cwd=template).splitlines())
    fixture = {f"{FIXTURE}/answers.json", f"{FIXTURE}/tickets.mar"}  # archives are ignored elsewhere
    assert changed == {"src/trainyard/base/version.py", "CHANGELOG.md", *fixture}
    text = (template / "CHANGELOG.md").read_text()
    assert f"## [Unreleased]\n\n## [{NEW}] - 20" in text
    assert text.count(f"[{NEW}]") == 1

    wheel = template / f"dist/trainyard-{NEW}-py3-none-any.whl"
    digest, name = Path(f"{wheel}.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.name)
    assert f'VERSION = "{NEW}"' in zipfile.ZipFile(wheel).read("trainyard/base/version.py").decode()
    parts = json.loads(wheel.with_suffix(".cdx.json").read_text())
    assert parts["metadata"]["component"] == {"name": "trainyard", "version": NEW}

    # The same again builds the same, and adds no commit; another commit can't have the number.
    before = git("rev-parse", "HEAD", cwd=template)
    assert release(template, NEW).returncode == 0
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == digest
    assert git("rev-parse", "HEAD", cwd=template) == before
    git("commit", "--quiet", "--allow-empty", "--message", "More", cwd=template)
    again = release(template, NEW)
    assert (again.returncode, "another commit" in again.stderr) == (2, True)


@pytest.mark.parametrize("words", [[], ["--tested"]], ids=["all tests", "tests of releases"])
def test_a_release_whose_tests_fail_leaves_nothing_behind(template: Path, words: list[str]) -> None:
    (template / ".git/info/exclude").write_text("broken\nran\n")
    (template / "broken").touch()
    before = git("rev-parse", "HEAD", cwd=template)
    failed = release(template, NEW, *words)
    assert (failed.returncode, "nothing is changed" in failed.stderr) == (1, True), failed.stderr
    assert (template / "ran").exists() == (not words)
    assert git("tag", "--list", f"v{NEW}", cwd=template) == ""
    assert git("rev-parse", "HEAD", cwd=template) == before
    assert git("status", "--porcelain", "--ignored", "--", "src", "tests/template/fixtures", cwd=template) == ""
    assert git("status", "--porcelain", cwd=template) == ""

    (template / "broken").unlink()
    assert release(template, NEW, *words).returncode == 0
    assert git("log", "--format=%s", "-1", cwd=template) == f"Release {NEW}"
    assert (template / "CHANGELOG.md").read_text().count(f"[{NEW}]") == 1


def test_a_tag_that_cannot_be_made_takes_its_commit_back(template: Path) -> None:
    before = git("rev-parse", "HEAD", cwd=template)
    git("config", "tag.gpgSign", "true", cwd=template)
    git("config", "gpg.program", "/bin/false", cwd=template)
    assert release(template, NEW, "--tested").returncode
    assert (git("rev-parse", "HEAD", cwd=template), git("status", "--porcelain", cwd=template)) == (before, "")


def test_what_is_committed_while_the_tests_run_is_not_released(template: Path) -> None:
    meanwhile = "echo >>requirements.lock && git commit --quiet --message Later --only requirements.lock\n"
    (template / "scripts/test.sh").write_text(meanwhile)
    git("commit", "--quiet", "--all", "--message", "Commit in the tests", cwd=template)
    refused = release(template, NEW)
    assert (refused.returncode, "isn't tested" in refused.stderr) == (2, True)
    assert git("log", "--format=%s", "-1", cwd=template) == "Later"
    assert git("status", "--porcelain", cwd=template) == ""


def test_a_later_release_of_a_minor_version_adds_no_fixture(template: Path) -> None:
    (template / "tests/template/test_earlier_releases.py").write_text("def test() -> None: ...\n")
    git("commit", "--quiet", "--all", "--message", "Test nothing", cwd=template)
    assert release(template, "9.0.1", "--tested").returncode == 0
    changed = git("diff", "--name-only", "HEAD~1", cwd=template).splitlines()
    assert changed == ["CHANGELOG.md", "src/trainyard/base/version.py"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "say which version"),
        (["1.0"], "say which version"),
        (["v9.0.0"], "say which version"),
        (["09.0.0"], "say which version"),
        ([NEW, "--teste"], "say which version"),
        (["0.0.9"], "of another commit"),
        (["0.0.10rc1"], "isn't newer than the last release, 0.0.10"),
        (["0.0.8"], "isn't newer"),
    ],
)
def test_another_number_is_refused(shipped: Path, words: list[str], reason: str) -> None:
    refused = release(shipped, *words)
    assert (refused.returncode, reason in refused.stderr, refused.stderr.count("\n")) == (2, True, 1)
    assert f'"{VERSION}"' in (shipped / "src/trainyard/base/version.py").read_text()


def test_a_release_is_made_of_what_is_committed_on_main(template: Path) -> None:
    (template / "src/trainyard/base/cpu.py").write_text("")
    dirty = release(template, NEW)
    assert (dirty.returncode, "uncommitted" in dirty.stderr) == (2, True)
    git("checkout", "--quiet", "-b", "topic", cwd=template)
    git("commit", "--quiet", "--all", "--message", "Topic", cwd=template)
    branch = release(template, NEW)
    assert (branch.returncode, "git switch main" in branch.stderr) == (2, True)
