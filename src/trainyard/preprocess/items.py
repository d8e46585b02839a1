"""From the cells of a table's row to an item, for training and for ``predict`` alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from trainyard.preprocess.base import Item


def cell_text(value: object) -> str:
    """A cell as text; empty if it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # integers of a column that also has gaps
        return str(int(value))
    return str(value)


def text_item(values: Sequence[object], pair: bool) -> str | tuple[str, str]:
    """Joins a row's texts by a space, or takes them as a pair; empty if there is nothing but space."""
    texts = [cell_text(value) for value in values]
    if not any(text.strip() for text in texts):
        return ""
    return (texts[0], texts[1]) if pair else " ".join(text for text in texts if text.strip())


def image_item(value: object, folder: Path) -> Item:
    """An image given by its path, its bytes, or both in the dictionary that `datasets` writes; empty if by none."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    return folder / value if isinstance(value, str) and value.strip() else ""
