"""From columns to examples: joining texts, naming labels, telling what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

from trainyard.base.errors import DataError, ItemError, UsageError
from trainyard.config.data import Column, ImagesConfig, TextsConfig
from trainyard.data.labels import label_name
from trainyard.data.records import SPLITS, BadExample, Found, Row, Rows, Split, split_named
from trainyard.preprocess.base import Item
from trainyard.preprocess.items import image_item, text_item
from trainyard.preprocess.rows import Dialect, MissingColumn, Table
from trainyard.preprocess.tables import is_delimited, read_table

Read = TypeVar("Read")
NAME_COLUMNS = "name the columns with data.label and data.text (or data.image)"


def item_columns(data: ImagesConfig | TextsConfig) -> list[Column]:
    """The columns that make up an item."""
    if isinstance(data, ImagesConfig):
        return [data.image]
    return list(data.text) if isinstance(data.text, list) else [data.text]


def read_examples(path: Path, name: str, data: ImagesConfig | TextsConfig, split: Split | None = None) -> Found:
    """Reads a table of examples; paths of images are relative to its folder.

    Args:
        name: What reports call it.
        split: The split that all rows belong to; ``None`` if their split column says it, or else training.

    Raises:
        DataError: a column isn't there (lists those that are), or the file is broken as a whole.
        UsageError: ``data.header`` and the columns contradict each other.
    """
    wanted = [*item_columns(data), data.label]
    dividing = [data.split] if split is None and data.split is not None and data.split not in wanted else []
    named = [column for column in wanted if isinstance(column, str)]
    if is_delimited(path) and data.header is False and named:
        raise UsageError(
            f"data.header=false leaves the columns without names, but {named[0]!r} is one: "
            "give positions, such as data.text=0 data.label=1"
        )
    try:
        # One that was named has to be there; that of the default name need not.
        named_split = dividing if data.split != type(data).model_fields["split"].default else []
        table = read_table(path, name, [*wanted, *named_split], dividing, Dialect.of(dict(data)), data.label)
    except MissingColumn as error:
        if error.column == data.label and split in ("val", "test"):
            return Found({}, warnings=[f"{name} has no column {data.label!r} of labels and isn't used"])
        hint = "; or, if the first row isn't a header, data.header=false and positions from 0"
        may_be_data = is_delimited(path) and data.header is None and named
        raise DataError(f"{error}: {NAME_COLUMNS}{hint if may_be_data else ''}") from None
    if is_delimited(path) and data.header is None and not named:
        _check_first_label(table, data.label)
    divides = bool(dividing) and data.split in table.columns
    found = find_examples(table_rows(table, data, path.parent, None if divides else split or "train"))
    found.notes += [f"{name} is read as {table.note}"] if table.note else []
    if divides:
        found.notes.append(
            f"{name} is divided by its column {data.split!r} (data.split=null takes it for one like others)"
        )
    return found


def _check_first_label(table: Table, label: Column) -> None:
    """Columns given by position say nothing of a header: a first row with a label of its own looks like one."""
    found = list(map(str, table.column(label)))
    labels = Counter(found)
    if found and labels[found[0]] == 1 and len(labels) > 2 and max(labels.values()) > 1:
        raise DataError(
            f"{table.rows[0][0]}: the label {found[0]!r} occurs in the first row only; "
            "say data.header=true if that row holds column names, data.header=false if not"
        )


def table_rows(table: Table, data: ImagesConfig | TextsConfig, folder: Path, split: Split | None) -> Iterator[Row]:
    """The rows of a table as examples; what can't be used is an error in its place.

    Args:
        folder: Paths of images are relative to it.
        split: Of all rows; ``None`` if the column ``data.split`` says it.
    """
    at = {column: position for position, column in enumerate(table.columns)}
    columns = [at[column] for column in item_columns(data)]
    for where, cells in table.rows:
        if isinstance(cells, ItemError):
            yield Row(cells, None, split, where)
            continue
        values = [cells[column] for column in columns]
        item: Item | ItemError
        if isinstance(data, ImagesConfig):
            item = image_item(values[0], folder)
        else:
            item = _or_error(text_item, values, data.pair)
        yield Row(item, cells[at[data.label]], split or str(cells[at[cast("Column", data.split)]]), where)


def find_examples(rows: Iterable[Row]) -> Found:
    """Parts good examples from bad ones; a split without any label (a benchmark's hidden test) isn't used."""
    kept: dict[Split, Rows] = {}
    bad: list[tuple[Split | None, BadExample]] = []
    labelled: dict[Split | None, bool] = {}
    for row in rows:
        split: Split | None = "train" if row.split is None else split_named(row.split)
        label, item = _or_error(label_name, row.label), row.item
        if not isinstance(item, ItemError):  # of which a table may not say whose row it is
            labelled[split] = labelled.get(split, False) or bool(label)
        if isinstance(label, ItemError) or isinstance(item, ItemError):
            reason = str(label if isinstance(label, ItemError) else item)
        elif not label:
            reason = "no label"
        elif not item or (isinstance(item, str) and not item.strip()):
            reason = "empty"
        elif split is None:
            reason = "its split is none of train, val and test"
        else:
            if split not in kept:
                kept[split] = Rows([], [], [])
            kept[split].add(item, label, row.where)
            continue
        bad.append((split, BadExample(row.where, reason)))
    return Found(
        kept,
        [example for split, example in bad if split is None or labelled.get(split, True)],
        [f"the {split} split has no labels and isn't used" for split in SPLITS if labelled.get(split) is False],
    )


def merge(parts: Sequence[Found]) -> Found:
    """Joins what several sources hold."""
    merged = Found({split: Rows([], [], []) for split in SPLITS if any(split in found.splits for found in parts)})
    for found in parts:
        for split, rows in found.splits.items():
            for example in zip(rows.items, rows.labels, rows.sources, strict=True):
                merged.splits[split].add(*example)
        merged.bad += found.bad
        merged.warnings += found.warnings
        merged.notes += found.notes
    return merged


def _or_error(read: Callable[..., Read], *arguments: object) -> Read | ItemError:
    try:
        return read(*arguments)
    except ItemError as error:
        return error
