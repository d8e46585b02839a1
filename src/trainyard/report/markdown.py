"""Markdown: names as they are, numbers, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

NONE = "-"
"""Stands for what wasn't measured."""


def markdown(text: str) -> str:
    """Markdown that shows ``text`` as it is, on one line."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table; cells are Markdown."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join(['---'] * len(header))}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def number(value: float | None, digits: int = 4) -> str:
    """A number with this many digits behind the point."""
    return NONE if value is None else f"{value:,.{digits}f}"
