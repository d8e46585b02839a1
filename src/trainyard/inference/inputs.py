"""What a user hands to ``predict``: files, folders, tables, texts, standard input."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import DataError, ItemError, UsageError
from trainyard.heads.base import Prediction
from trainyard.preprocess.base import Item, Kind
from trainyard.preprocess.delimited import find_encoding, open_text
from trainyard.preprocess.folders import IMAGE_SUFFIXES, files_below, is_image
from trainyard.preprocess.items import image_item, text_item
from trainyard.preprocess.rows import Column, Dialect, MissingColumn, Table
from trainyard.preprocess.tables import TABLE_SUFFIXES, is_delimited, read_table, table_format

TABLES = f"a table ({', '.join(TABLE_SUFFIXES)})"

Named = tuple[str, Item | ItemError]
"""What to show for an item, and the item, or what is wrong with its row."""


@dataclass(frozen=True)
class Reads:
    """How a model's items are read from what a user hands over.

    Attributes:
        kind: What an item is.
        pair: Whether an item is a pair of texts.
        columns: Of a table, that hold an item.
        dialect: Of a table, what the config said of it.
        label: Column of the labels, which a table here need not have.
    """

    kind: Kind
    pair: bool
    columns: tuple[Column, ...]
    dialect: Dialect
    label: Column | None = None

    @staticmethod
    def of(bundle: Bundle) -> Reads:
        """As the bundle's own data were read in training."""
        kind, config = bundle.kind, bundle.facts.data.config
        columns = config.get(kind, kind)
        listed = columns if isinstance(columns, list) else [columns]
        label = config.get("label", "label")
        return Reads(kind, bundle.reads_pairs, tuple(map(_column, listed)), Dialect.of(config), _column(label))


def read_inputs(words: Sequence[str], reads: Reads) -> Iterator[Named]:
    """Gives every item with a name to show for it. ``-`` reads lines from standard input.

    A row of a table that training would count as bad is an ``ItemError`` in its place.

    Raises:
        UsageError: a file isn't there or is broken as a whole, a folder holds no images, a table lacks the column.
    """
    # Files, folders and lines of paths, or texts and lines of them: command lines are no concern of a preprocessor.
    is_image = reads.kind == "image"
    read = _read_images if is_image else _read_texts
    # A line that looks like a file's name is a text all the same: it came out of somebody's data.
    read_line = _read_images if is_image else _read_text
    try:
        for word in words:
            if word == "-":
                for line in filter(str.strip, _standard_input("surrogateescape" if is_image else "replace")):
                    yield from read_line(line.rstrip("\n"), reads)
            else:
                yield from read(word, reads)
    except DataError as error:
        raise UsageError(str(error)) from error


def answer(
    inputs: Sequence[Named], predict: Callable[[list[Item]], Sequence[Prediction | ItemError]]
) -> list[tuple[str, Prediction | ItemError]]:
    """Predicts what can be predicted; the rest keeps its error. In the order of ``inputs``."""
    predictions = iter(predict([item for _, item in inputs if not isinstance(item, ItemError)]))
    return [(name, item if isinstance(item, ItemError) else next(predictions)) for name, item in inputs]


def _standard_input(errors: str) -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors=errors)  # one wrong byte is no reason to answer nothing
    return sys.stdin


def _read_images(word: str, reads: Reads) -> Iterator[Named]:
    path = Path(word)
    # Unlike Path's, these say no to a name that is too long or holds a NUL.
    if os.path.isdir(word):
        yield from _read_image_folder(path)
    elif not os.path.isfile(word):
        raise UsageError(f"there is no image {_shown(word)}: give an image, a folder of images, or {TABLES} of paths")
    elif table_format(path):
        yield from _read_rows(path, reads, lambda values: _named_image(values[0], path.parent))
    else:
        yield word, path


def _read_image_folder(folder: Path) -> Iterator[Named]:
    try:
        files = sorted(filter(is_image, files_below(folder)))
    except OSError as error:
        raise UsageError(f"the folder {folder} can't be read ({error}): change its permissions") from error
    if not files:
        raise UsageError(f"the folder {folder} holds no images: their names end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    yield from ((str(file), file) for file in files)


def _named_image(value: object, folder: Path) -> tuple[str, Item]:
    return value if isinstance(value, str) else "", image_item(value, folder)


def _read_texts(word: str, reads: Reads) -> Iterator[Named]:
    path = Path(word)
    otherwise = "if it is a text itself, give it through standard input, as a line for the argument -"
    if os.path.isdir(word):
        raise UsageError(f"{path} is a folder: name the files in it ({path}/*.csv); {otherwise}")
    if not os.path.isfile(word):
        if (table_format(path) or path.suffix.lower() == ".txt") and " " not in word:
            raise UsageError(f"there is no file {_shown(word)}: check its path; {otherwise}")
        yield from _read_text(word, reads)
    elif table_format(path):
        yield from _read_rows(path, reads, lambda values: _named_text(values, reads.pair))
    else:
        yield from _read_lines(path, reads)


def _read_text(text: str, reads: Reads) -> Iterator[Named]:
    if reads.pair:
        raise UsageError(f"this model classifies pairs of texts: give {TABLES} with {_listed(reads.columns)}")
    yield text, text


def _read_lines(path: Path, reads: Reads) -> Iterator[Named]:
    try:
        # Not str.splitlines: it also breaks lines where Unicode says so, within a text.
        with open_text(path, find_encoding(path, str(path), reads.dialect.encoding), "replace") as lines:
            for line in filter(str.strip, lines):
                yield from _read_text(line.rstrip("\r\n"), reads)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}): change its permissions") from error


def _named_text(values: Sequence[object], pair: bool) -> tuple[str, Item]:
    item = text_item(values, pair)
    return item if isinstance(item, str) else " ".join(item), item


def _read_rows(path: Path, reads: Reads, named: Callable[[Sequence[object]], tuple[str, Item]]) -> Iterator[Named]:
    """Rows as training reads them; one without a name of its own is shown as ``file.csv:12``."""
    table, columns = _read_columns(path, reads)
    order = [table.columns.index(column) for column in columns]
    for where, cells in table.rows:
        if isinstance(cells, ItemError):
            yield where, cells
            continue
        try:
            name, item = named([cells[i] for i in order])
        except ItemError as error:
            yield where, error
            continue
        if item:
            yield name or where, item
        else:
            yield where, ItemError(f"the row has nothing in {_listed(columns)}")


def _read_columns(path: Path, reads: Reads) -> tuple[Table, Sequence[Column]]:
    """The table, and its names of the columns; the only column of a file can be no other, whatever its name."""
    columns = reads.columns
    labels = [reads.label] if reads.label is not None and reads.label not in columns else []
    # A file here may have a header where that of the training had none.
    header = reads.dialect.header is True or any(isinstance(column, str) for column in columns)
    dialect = replace(reads.dialect, header=header)
    try:
        return read_table(path, str(path), columns, labels, dialect, reads.label), columns
    except MissingColumn as error:
        if not error.names:
            raise UsageError(f"{path} is empty: give {TABLES} with {_listed(columns)}") from None
        # One column, and not a header by its look: lines of texts, or of paths.
        looks_so = header and re.search(r"[;|\t]|^\w+$", error.names[0])
        is_bare = len(columns) == len(error.names) == 1 and not looks_so
        if is_bare and is_delimited(path) and not reads.dialect.header:
            return read_table(path, str(path), [0], (), replace(dialect, header=False)), [0]
        raise UsageError(
            f"{error}: this model reads {_listed(columns)}, as in its training data; name or order the columns so"
        ) from None


def _column(value: object) -> Column:
    return value if isinstance(value, int) else str(value)


def _listed(columns: Sequence[Column]) -> str:
    return " and ".join(f"column {column!r}" for column in columns)


def _shown(word: str) -> str:
    return repr(word if len(word) <= 60 else f"{word[:60]}...")
