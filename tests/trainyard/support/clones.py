"""Copies of this repository that a test may rename, update or spoil, made without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(*command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Without git's own variables, which point at the outer repository inside a commit hook."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | more
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def git(*arguments: str, cwd: Path) -> str:
    """The output of a command that must succeed, whoever is configured on this machine."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "core.autocrlf=false")
    result = run("git", *identity, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def commit(folder: Path, message: str) -> None:
    """All files of the folder, which is made a repository if it isn't one."""
    if not (folder / ".git").exists():
        git("init", "--quiet", "--initial-branch=main", cwd=folder)
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", message, cwd=folder)


def copy(folder: Path) -> Path:
    """The files as they are here, committed or not, without a history."""
    if run("git", "rev-parse", "--is-inside-work-tree", cwd=ROOT).returncode:
        pytest.skip("not a git work tree")
    for relative in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        if relative and (ROOT / relative).is_file():  # not what is deleted but still in the index
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / relative, folder / relative)
    return folder
