"""What a user hands to ``predict``: files, folders, tables, texts, standard input."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainyard.core.bundle import Bundle
from trainyard.core.preprocess import Item
from trainyard.errors import UsageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
TABLES = frozenset({".csv", ".tsv"})
MAX_FIELD = 2**31 - 1
"""Characters of a field; the csv module's own limit of 131,072 is too small for documents."""


def read_inputs(words: Sequence[str], bundle: Bundle) -> Iterator[tuple[str, Item]]:
    """Gives every item with a name to show for it. ``-`` reads lines from standard input.

    Raises:
        UsageError: a file isn't there, a folder holds no images, a table lacks the column.
    """
    read = _read_images if bundle.facts.task == "image-classification" else _read_texts
    for word in words:
        if word == "-":
            for line in filter(str.strip, sys.stdin):
                yield from read(line.rstrip("\n"), bundle)
        else:
            yield from read(word, bundle)


def _read_images(word: str, bundle: Bundle) -> Iterator[tuple[str, Item]]:
    path = Path(word)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise UsageError(f"the folder {path} holds no images")
        yield from ((str(file), file) for file in files)
    elif path.suffix.lower() in TABLES and path.is_file():
        for (name,) in _read_table(path, [bundle.facts.data.config.get("image", "image")], bundle):
            yield name, path.parent / name
    elif path.is_file():
        yield word, path
    else:
        raise UsageError(f"there is no image {path}")


def _read_texts(word: str, bundle: Bundle) -> Iterator[tuple[str, Item]]:
    path = Path(word)
    # A text that happens to be long can't be asked about as a path on every system.
    if len(word) > 255 or not path.is_file():
        if path.suffix.lower() in {*TABLES, ".txt", ".jsonl"} and " " not in word:
            raise UsageError(f"there is no file {path}")
        yield word, _as_item([word], bundle)
        return
    for parts in _text_rows(path, bundle):
        yield " ".join(parts), _as_item(parts, bundle)


def _text_rows(path: Path, bundle: Bundle) -> Iterator[Sequence[str]]:
    wanted = bundle.facts.data.config.get("text", "text")
    columns = list(wanted) if isinstance(wanted, list) else [wanted]
    match path.suffix.lower():
        case ".csv" | ".tsv":
            yield from _read_table(path, columns, bundle)
        case ".jsonl":
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                try:
                    row = json.loads(line)
                    yield [str(row[column]) for column in columns]
                except (ValueError, KeyError, TypeError) as error:
                    raise UsageError(f"{path}:{number} is no JSON object with the keys {columns}") from error
        case _:
            for line in filter(str.strip, path.read_text(encoding="utf-8", errors="replace").splitlines()):
                yield [line]


def _as_item(parts: Sequence[str], bundle: Bundle) -> Item:
    if not bundle.facts.data.config.get("pair"):
        return " ".join(parts)
    if len(parts) != 2:
        raise UsageError("this model classifies pairs of texts: give a CSV file with two columns")
    return parts[0], parts[1]


def _read_table(path: Path, columns: Sequence[object], bundle: Bundle) -> Iterator[list[str]]:
    """Rows of the named columns; a table without these names is read by position, first column first."""
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise UsageError(f"{path} is empty")
    # A position isn't looked for among the names: a cell of the first row may hold that number.
    named = all(isinstance(column, str) and column in first for column in columns)
    positions = [
        column if isinstance(column, int) else first.index(str(column)) if named else i
        for i, column in enumerate(columns)
    ]
    if not named and not bundle.facts.data.config.get("header"):
        yield _pick(first, positions, path)
    for row in rows:
        yield _pick(row, positions, path)


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows as training reads them: quotes are ordinary characters in a TSV; blank lines are passed over."""
    csv.field_size_limit(MAX_FIELD)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if path.suffix.lower() == ".tsv":
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            rows = csv.reader(file, strict=True)
        try:
            yield from filter(None, rows)
        except csv.Error as error:
            raise UsageError(f"{path}:{rows.line_num} is no row of a table: {error}") from error


def _pick(row: Sequence[str], positions: Sequence[int], path: Path) -> list[str]:
    try:
        return [row[position] for position in positions]
    except IndexError as error:
        raise UsageError(f"{path} has a row with only {len(row)} columns: {row}") from error
