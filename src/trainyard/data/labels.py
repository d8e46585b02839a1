"""Names of classes: what a person reads as one name is one class, and what is no name is said to be none."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainyard.base.errors import DataError, ItemError
from trainyard.data.records import Rows, Split
from trainyard.preprocess.items import cell_text

_INVISIBLE = {0x200B: None, 0xFEFF: None}
"""A zero-width space and a byte order mark, as they stick to what is copied from a page or a file."""
_WHOLE = re.compile(r"([+-]?\d+)(\.0+)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SEVERAL = re.compile(r"\s*[,;|]\s*")
MIN_LABELS = 10
"""With fewer, every label may well be there once."""
SHOWN = 5


def label_name(value: object) -> str:
    """A label as a class name: composed (NFC), without invisible characters and space around it; empty if missing.

    Raises:
        ItemError: it is no name: a list, bytes, half a surrogate pair.
    """
    is_number = isinstance(value, float) and value == value  # which isn't NaN; 1.0 is 1 only if all are whole
    text = str(value) if is_number else cell_text(value, "label")
    name = _composed(text)
    if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
        raise ItemError(f"the label {name!r} isn't Unicode: give it another name")
    return name


def with_whole_numbers(splits: Mapping[Split, Rows]) -> dict[Split, Rows]:
    """``1.0`` as ``1``, where all labels are whole numbers: pandas writes a column that has gaps so."""
    names = {label for rows in splits.values() for label in rows.labels}
    if not all(map(_WHOLE.fullmatch, names)):
        return dict(splits)
    short = {name: name.partition(".")[0] for name in names}
    return {split: replace(rows, labels=[short[label] for label in rows.labels]) for split, rows in splits.items()}


def as_known(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The labels in the spelling of a classifier's classes, where one was sealed with another form of the same name."""
    spelling = {_plain(name): name for name in classes} | {name: name for name in classes}
    return [spelling.get(label, spelling.get(_plain(label), label)) for label in labels]


def twin_warnings(counts: Mapping[str, int]) -> list[str]:
    """A warning of names that differ in case, spaces or the form of letters only, with how many examples have each."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in counts:
        alike[folded(_plain(name))].append(name)
    twins = [sorted(names) for names in alike.values() if len(names) > 1]
    if not twins:
        return []
    shown = "; ".join(" and ".join(f"{name!r} ({counts[name]:,})" for name in names) for names in twins[:SHOWN])
    more = f"; and {len(twins) - SHOWN} more" if len(twins) > SHOWN else ""
    return [f"classes that read as one are several: {shown}{more}; write them alike if they are meant to be one"]


def folded(text: str) -> str:
    """What is left of a text without case, the form of its letters, and how many spaces lie between its words."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def check_labels(labels: Sequence[str], column: object) -> list[str]:
    """Whether a training split's labels look like names of classes.

    Args:
        column: ``data.label``.

    Returns:
        A warning, if they may be something else.

    Raises:
        DataError: most occur once: it is another column, or a number to be predicted.
    """
    counts = Counter(labels)
    once = [name for name, count in counts.items() if count == 1]
    amounts = all(map(_NUMBER.fullmatch, counts)) and not all(map(_WHOLE.fullmatch, counts))
    held = ", ".join(map(repr, list(counts)[:SHOWN]))
    if len(labels) >= MIN_LABELS and 2 * len(once) > len(labels):
        what = (
            "numbers to be predicted (regression), which isn't done here" if amounts else "texts or names of examples"
        )
        raise DataError(
            f"{len(counts):,} different labels in {len(labels):,} rows of training: is data.label={column} right? "
            f"It holds {held}, which look like {what}: name the column of the classes"
        )
    if amounts:
        return [f"the labels look like amounts (regression), and each is taken as a class: {held}"]
    for name in counts:
        parts = _SEVERAL.split(name)
        if len(parts) > 1 and all(part in counts for part in parts):
            what = "labels look like several at once (multi-label), and each is taken as a class of its own"
            return [f"{what}: {name!r} beside {parts[0]!r}"]
    return []


def _plain(name: str) -> str:
    """As names are read today."""
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole else _composed(name)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_INVISIBLE).strip()
