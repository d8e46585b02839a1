"""Words that depend on a number."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """Gives ``1 file``, ``2 files``; ``many`` is what isn't made by an s, as classes are."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
