"""From the cells of a table's row to an item, for training and for ``predict`` alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from trainyard.base.errors import ItemError
from trainyard.preprocess.base import Item


def cell_text(value: object, what: str = "text") -> str:
    """A cell as text; empty if it is missing. Numbers and booleans are texts, too.

    Args:
        what: What it is to be, for the error.

    Raises:
        ItemError: it is nothing that can be read: an object, a list, a date, bytes that aren't UTF-8.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():  # integers of a column that also has gaps
        return str(int(value))
    if isinstance(value, str | int | float | Decimal):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ItemError(f"the {what} is bytes that aren't UTF-8") from None
    if isinstance(value, dict):
        keys = ", ".join(map(repr, list(value)[:5]))
        inner = next(iter(value), "key")
        raise ItemError(f"the {what} is an object with {keys}: name what is in it, as in data.{what}=COLUMN.{inner}")
    if isinstance(value, list | tuple | set):
        fix = "an example has one label (multi-label isn't done here)" if what == "label" else "join it to one string"
        raise ItemError(f"the {what} is a list, not a string: {fix}, or name another column with data.{what}")
    raise ItemError(f"the {what} is a {type(value).__name__}, not a string: name another column with data.{what}")


def text_item(values: Sequence[object], pair: bool) -> str | tuple[str, str]:
    """Joins a row's texts by a space, or takes them as a pair; empty if there is nothing but space.

    Raises:
        ItemError: one isn't text; see ``cell_text``.
    """
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
