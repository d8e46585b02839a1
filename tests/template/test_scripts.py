"""The thin scripts: they keep the working directory, the arguments and the exit code."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from clones import commit

ROOT = Path(__file__).resolve().parents[2]
VERBS = ["train", "evaluate", "export", "serve"]


def call(script: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRAINYARD_PYTHON"}
    return subprocess.run(
        ["bash", script, *arguments], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_environment_is_one_sentence(verb, tmp_path):
    (tmp_path / "scripts").mkdir()
    script = Path(shutil.copy(ROOT / "scripts" / f"{verb}.sh", tmp_path / "scripts"))
    result = call(script, "anything", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "scripts/setup.sh" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_directory_arguments_and_exit_code_are_kept(verb, tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\npwd\nprintf "%s|" "$@"\nexit 3\n')
    stub.chmod(0o755)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    script = ROOT / "scripts" / f"{verb}.sh"
    result = call(script, "a b", "seed=1", cwd=elsewhere, TRAINYARD_PYTHON=str(stub))
    assert result.returncode == 3
    assert result.stdout == f"{elsewhere}\n-m|trainyard|{verb}|a b|seed=1|"


@pytest.mark.parametrize(
    ("text", "is_red"),
    [
        ("<<<<<<< yours\na\n=======\nb\n>>>>>>> v9.0.0\n", True),
        ("left over\n>>>>>>> v9.0.0\n", True),
        ("Heading\n=======\n\n>>>>>>>> x\n <<<<<<< y\n<<<<<<<\n", False),
    ],
)
def test_a_conflict_that_was_committed_is_red(text, is_red, tmp_path):
    (tmp_path / "scripts").mkdir()
    script = Path(shutil.copy(ROOT / "scripts" / "test.sh", tmp_path / "scripts"))
    (tmp_path / "scripts" / "setup.sh").write_text("#!/bin/sh\nexit 9\n")  # what comes next
    (tmp_path / "scripts" / "setup.sh").chmod(0o755)
    (tmp_path / "a page.md").write_text(text)
    if is_red:
        assert call(script, cwd=tmp_path).returncode == 9  # without git there was no merge
    commit(tmp_path, "All")
    result = call(script, cwd=tmp_path)
    assert (result.returncode, "in: a page.md\n" in result.stderr) == ((3, True) if is_red else (9, False))


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_each_script_says_how_to_use_it(script):
    shebang, usage, *rest = script.read_text().splitlines()
    assert shebang == "#!/usr/bin/env bash"
    assert usage.startswith(f"# Usage: scripts/{script.name}")
    assert "set -euo pipefail" in rest
    assert os.access(script, os.X_OK)
