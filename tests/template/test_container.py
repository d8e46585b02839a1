"""The serving image: what its recipe says, and all that scripts/container_test.sh sees of it when it runs."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def reaches_the_builder(path: str) -> bool:
    """Whether a file is sent to the builder: the last pattern that matches it or a folder above it decides."""
    kept = True
    parts = path.split("/")
    places = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    for pattern in IGNORED:
        bare = pattern.removeprefix("!")
        names = parts if bare.startswith("**/") else places
        if any(fnmatch.fnmatchcase(name, bare.removeprefix("**/")) for name in names):
            kept = pattern.startswith("!")
    return kept


def copied() -> list[str]:
    """What the Dockerfile copies from the clone."""
    lines = re.findall(r"(?m)^COPY (?!--from)(.+)$", DOCKERFILE)
    return [source for line in lines for source in line.split()[:-1]]


def test_all_that_is_copied_reaches_the_builder():
    assert {"src", "serving", "requirements-serve.lock"} <= set(copied())
    assert "vendor*" in copied()  # what scripts/vendor.sh makes of the library, and none where it is a folder
    assert reaches_the_builder("vendor/trainyard-0.1.0-py3-none-any.whl")
    for source in copied():
        if source != "vendor*":
            assert (ROOT / source).exists()
            assert reaches_the_builder(source), source


@pytest.mark.parametrize(
    "path",
    [".git/config", ".venv/bin/python", "runs/a/latest/bundle/model.safetensors", ".env", "key_file.json", "token",
     "tests/conftest.py", "requirements.lock", "src/trainyard/__pycache__/cli.pyc", "src/trainyard.egg-info/PKG-INFO",
     "Dockerfile", "wandb/a"],
)  # fmt: skip
def test_nothing_else_does(path):
    assert not reaches_the_builder(path)


def test_no_secret_is_an_argument_or_a_variable():
    """Both stay in the image's history."""
    names = re.findall(r"(?m)^(?:ARG|ENV) (\w+)", DOCKERFILE)
    assert names
    assert not [name for name in names if re.search("(?i)token|secret|password|key", name)]


def test_every_stage_has_the_pinned_base():
    assert re.search(r"(?m)^ARG BASE=python:3\.11-slim-bookworm$", DOCKERFILE)
    stages = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE)
    names = {name for _, name in stages}
    assert {source for source, _ in stages} - names == {"${BASE}"}


def test_what_is_installed_is_hashed():
    """A package index and the wheel of this project aside: the one by choice, the other without any download."""
    scripts = (ROOT / f"scripts/container_{part}.sh" for part in ("packages", "project"))
    commands = DOCKERFILE + "".join(script.read_text() for script in scripts)
    installs = re.findall(r"pip install(?:[^\n]|\\\n)*|(?m:^ +install .*)", commands.replace("\\\n", " "))
    assert len(installs) >= 5
    for line in installs:
        assert re.search(r"--require-hashes|--no-index|--index-url|\"\$@\"", line), line


@pytest.mark.slow
def test_the_image_serves(tmp_path):
    """Small models are trained, exported and served in it: answers, walls, memory, health, SIGTERM under load."""
    done = subprocess.run(
        [ROOT / "scripts/container_test.sh"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "ends by itself" in done.stdout.splitlines()[-1]
