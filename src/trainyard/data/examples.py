"""From columns to examples: joining texts, naming labels, telling what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

from trainyard.base.errors import DataError, ItemError, UsageError
from trainyard.config.data import Column, ImagesConfig, TextsConfig
from trainyard.data.labels import label_name
from trainyard.data.records import SPLITS, BadExample, Found, LazyItems, Rows, Split, split_named
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
    return _found(table, path.parent, name, data, split, bool(dividing))


def _found(
    table: Table, folder: Path, name: str, data: ImagesConfig | TextsConfig, split: Split | None, divides: bool
) -> Found:
    items = table_items(table, data, folder)
    parts: list[Split | None] = [split or "train"] * len(items)
    notes = [f"{name} is read as {table.note}"] if table.note else []
    if divides and data.split in table.columns:
        parts = [split_named(str(value)) for value in table.columns[data.split]]
        notes.append(f"{name} is divided by its column {data.split!r} (data.split=null takes it for one like others)")
    found = find_examples(items, table.columns[data.label], table.sources, parts)
    found.bad = [BadExample(row.where, row.reason) for row in table.bad] + found.bad
    found.notes += notes
    return found


def _check_first_label(table: Table, label: Column) -> None:
    """Columns given by position say nothing of a header: a first row with a label of its own looks like one."""
    labels = Counter(map(str, table.columns[label]))
    first = [str(cell) for cell in table.columns[label][:1]]
    if first and labels[first[0]] == 1 and len(labels) > 2 and max(labels.values()) > 1:
        raise DataError(
            f"{table.sources[0]}: the label {first[0]!r} occurs in the first row only; "
            "say data.header=true if that row holds column names, data.header=false if not"
        )


def table_items(table: Table, data: ImagesConfig | TextsConfig, folder: Path) -> list[Item | ItemError]:
    """The items of a table's rows; an empty one where nothing is, an error where it can't be used."""
    columns = [table.columns[column] for column in item_columns(data)]
    if isinstance(data, ImagesConfig):
        return [image_item(value, folder) for value in columns[0]]
    return [_or_error(text_item, values, data.pair) for values in zip(*columns, strict=True)]


def find_examples(
    items: Sequence[Item | ItemError], labels: Sequence[object], sources: Sequence[str], parts: Sequence[Split | None]
) -> Found:
    """Parts good examples from bad ones; a split without any label (a benchmark's hidden test) isn't used.

    Args:
        items: Empty where one is missing.
        labels: As the source has them.
        parts: The split of each example, ``None`` if it names none.
    """
    names = [_or_error(label_name, label) for label in labels]
    labelled = {part for part, name in zip(parts, names, strict=True) if name}
    unlabelled = [split for split in SPLITS if split in parts and split not in labelled]
    kept: dict[Split, list[int]] = {}
    bad = []
    for row, part in enumerate(parts):
        if part in unlabelled:
            continue
        faults = [names[row], "" if isinstance(items, LazyItems) else items[row]]
        if error := next((one for one in faults if isinstance(one, ItemError)), None):
            bad.append(BadExample(sources[row], str(error)))
        elif not names[row]:
            bad.append(BadExample(sources[row], "no label"))
        elif not isinstance(items, LazyItems) and not items[row]:
            bad.append(BadExample(sources[row], "empty"))
        elif part is None:
            bad.append(BadExample(sources[row], "its split is none of train, val and test"))
        else:
            kept.setdefault(part, []).append(row)
    warnings = [f"the {split} split has no labels and isn't used" for split in unlabelled]
    rows = Rows(cast("Sequence[Item]", items), cast("list[str]", names), sources)  # of those that are kept
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
        [note for found in parts for note in found.notes],
    )


def _or_error(read: Callable[..., Read], *arguments: object) -> Read | ItemError:
    try:
        return read(*arguments)
    except ItemError as error:
        return error


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]  # items that are read when asked for stay so
    return Rows(
        [item for rows in parts for item in rows.items],
        [label for rows in parts for label in rows.labels],
        [source for rows in parts for source in rows.sources],
    )
