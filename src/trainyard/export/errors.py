"""How a rung says that it can't be made."""

from __future__ import annotations

MAX_REASON = 200
"""Longest reason, in characters: errors of compilers can fill pages."""


class Skip(Exception):
    """A rung can't be made here. Its row gives the reason: a missing compiler, say, or a layer without a kernel."""


def first_line(error: BaseException) -> str:
    """What an error says, in short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
