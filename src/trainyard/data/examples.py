"""From columns to examples: joining texts, naming labels, telling what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainyard.config.data import Column, ImagesConfig, TextsConfig
from trainyard.data.records import SPLITS, BadExample, Found, LazyItems, Rows, Split, split_named
from trainyard.data.tables import Table, TableFile
from trainyard.preprocess.base import Item
from trainyard.preprocess.items import cell_text, image_item, text_item

__all__ = ["find_examples", "image_item", "item_columns", "label_name", "merge", "read_examples", "table_items"]

SPLIT_COLUMN = "split"
"""A column of this name divides a table."""


def item_columns(data: ImagesConfig | TextsConfig) -> list[Column]:
    """The columns that make up an item."""
    if isinstance(data, ImagesConfig):
        return [data.image]
    return list(data.text) if isinstance(data.text, list) else [data.text]


def read_examples(file: TableFile, data: ImagesConfig | TextsConfig, split: Split | None = None) -> Found:
    """Reads a table of examples; paths of images are relative to its folder.

    Args:
        split: The split that all rows belong to; ``None`` if their split column says it, or else training.
    """
    wanted = [*item_columns(data), data.label]
    dividing = [SPLIT_COLUMN] if split is None and SPLIT_COLUMN not in wanted else []
    table = file.read(wanted, dividing)
    items = table_items(table, data, file.path.parent)
    parts: list[Split | None] = [split or "train"] * len(items)
    if SPLIT_COLUMN in dividing and SPLIT_COLUMN in table.columns:
        parts = [split_named(str(value)) for value in table.columns[SPLIT_COLUMN]]
    found = find_examples(items, table.columns[data.label], table.sources, parts)
    found.bad = [BadExample(row.where, row.reason) for row in table.bad] + found.bad
    return found


def table_items(table: Table, data: ImagesConfig | TextsConfig, folder: Path) -> list[Item]:
    """The items of a table's rows; an empty one where nothing usable is."""
    columns = [table.columns[column] for column in item_columns(data)]
    if isinstance(data, ImagesConfig):
        return [image_item(value, folder) for value in columns[0]]
    return [text_item(values, data.pair) for values in zip(*columns, strict=True)]


def find_examples(
    items: Sequence[Item], labels: Sequence[object], sources: Sequence[str], parts: Sequence[Split | None]
) -> Found:
    """Parts good examples from bad ones; a split without any label (a benchmark's hidden test) isn't used.

    Args:
        items: Empty where one is missing.
        labels: As the source has them.
        parts: The split of each example, ``None`` if it names none.
    """
    rows = Rows(items, [label_name(label) for label in labels], sources)
    labelled = {part for part, label in zip(parts, rows.labels, strict=True) if label}
    unlabelled = [split for split in SPLITS if split in parts and split not in labelled]
    kept: dict[Split, list[int]] = {}
    bad = []
    for row, part in enumerate(parts):
        if part in unlabelled:
            continue
        if not rows.labels[row]:
            bad.append(BadExample(sources[row], "no label"))
        elif not isinstance(items, LazyItems) and not items[row]:
            bad.append(BadExample(sources[row], "empty"))
        elif part is None:
            bad.append(BadExample(sources[row], "its split is none of train, val and test"))
        else:
            kept.setdefault(part, []).append(row)
    warnings = [f"the {split} split has no labels and isn't used" for split in unlabelled]
    return Found({part: rows.select(chosen) for part, chosen in kept.items()}, bad, warnings)


def merge(parts: Sequence[Found]) -> Found:
    """Joins what several sources hold."""
    return Found(
        {
            split: _joined([found.splits[split] for found in parts if split in found.splits])
            for split in SPLITS
            if any(split in found.splits for found in parts)
        },
        [example for found in parts for example in found.bad],
        [warning for found in parts for warning in found.warnings],
    )


def label_name(value: object) -> str:
    """A label as a class name; empty if it is missing."""
    return cell_text(value).strip()


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]  # items that are read when asked for stay so
    return Rows(
        [item for rows in parts for item in rows.items],
        [label for rows in parts for label in rows.labels],
        [source for rows in parts for source in rows.sources],
    )
