"""Holds a process up before a rename that a test names; Python imports this at its start if it is on the path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

HOLD_BEFORE, HELD = os.environ.get("HOLD_BEFORE"), os.environ.get("HELD")
"""The name that a file or folder is about to get (``*`` stands for anything), and the file that then tells the test."""


def holding(rename: Callable[..., None]) -> Callable[..., None]:
    def wrapper(source: str, target: str, **options: int) -> None:
        if HOLD_BEFORE and HELD and fnmatch(Path(target).name, HOLD_BEFORE):
            Path(HELD).touch()
            time.sleep(3600)
        rename(source, target, **options)

    return wrapper


os.rename, os.replace = holding(os.rename), holding(os.replace)
