"""How a format says that it can't be made."""

from __future__ import annotations

import re

MAX_REASON = 200
"""Longest reason, in characters: errors of compilers can fill pages."""
COLOUR = re.compile(r"\x1b\[\d*m")
"""How a terminal is told to change its colour."""


class Skip(Exception):
    """A format can't be made here. Its row gives the reason: a missing compiler, say, or a layer without a kernel."""


def first_line(error: BaseException) -> str:
    """What an error says, in short: that of its root, since exporters wrap it into advice on how to report it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in COLOUR.sub("", str(error)).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
