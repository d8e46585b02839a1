"""CSV and TSV in the dialects that spreadsheets, databases and pandas write, each found out from the file."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, cast

from trainyard.base.errors import DataError, ItemError
from trainyard.preprocess.rows import Column, Dialect, Record, Table, make_table

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTING: dict[bool, Literal[0, 3]] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}
_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_HEAD_LINES = 200
"""What a delimiter is told by."""
_MAX_FIELD_CHARS = 2**31 - 1  # the csv module's own limit of 131,072 is too small for documents


def read_delimited(
    path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column], dialect: Dialect, label: Column | None
) -> Table:
    """Reads columns of a CSV or TSV; see ``read_table``."""
    encoding = find_encoding(path, name, dialect.encoding)
    try:
        dialect, skipped = _sniff(path, replace(dialect, encoding=encoding), wanted)
        with open_text(path, encoding) as text:
            table, names, several_lines = make_table(
                name, _records(text, skipped, name, dialect), wanted, optional, dialect
            )
    except UnicodeError as error:
        raise DataError(f"{name} isn't {encoding} ({error}): save it as UTF-8") from error
    table.note = _note(path, dialect)
    if label is not None and label in table.columns:
        _split_swallowed(table, name, names, several_lines, label, dialect)
    return table


def _sniff(path: Path, dialect: Dialect, wanted: Sequence[Column]) -> tuple[Dialect, int]:
    """The dialect with nothing left open, and how many lines come before the table (Excel's ``sep=;``).

    The delimiter is the suffix's own where the wanted columns are found by it; else the first by which they are.
    """
    with open_text(path, str(dialect.encoding)) as text:
        head = list(itertools.islice(text, _HEAD_LINES))
    marked = re.fullmatch(r"sep=(.)", head[0].strip("\r\n"), re.IGNORECASE) if head else None
    said = dialect.delimiter or (marked and marked[1])
    usual = "\t" if _is_tsv(path) else ","
    candidates = [said] if said else [usual, *(other for other in _DELIMITERS if other != usual)]
    rows = {one: _head_rows(head[bool(marked) :], one, dialect) for one in candidates}
    fitting = [one for one in candidates if _fits(rows[one], wanted)]
    if not fitting and (any(isinstance(column, str) for column in wanted) or len(rows[candidates[0]][0]) < 2):
        fitting = [max(candidates, key=lambda one: len(rows[one][0]))]  # whose names say most in an error
    dialect = replace(dialect, delimiter=[*fitting, *candidates][0])
    if dialect.quoting is None:
        dialect = replace(dialect, quoting=not _is_tsv(path) or _is_quoted(path, dialect))
    return dialect, int(bool(marked))


def _head_rows(head: Sequence[str], delimiter: str, dialect: Dialect) -> list[list[str]]:
    quoting = _QUOTING[dialect.quoting is not False and delimiter != "\t"]
    rows = [[cell.strip() for cell in row] for row in csv.reader(head, delimiter=delimiter, quoting=quoting)]
    if len(head) == _HEAD_LINES:
        rows.pop()  # it may be cut
    return [row for row in rows if any(row)] or [[]]


def _fits(rows: Sequence[Sequence[str]], wanted: Sequence[Column]) -> bool:
    named = [column for column in wanted if isinstance(column, str)]
    if named:
        return all(column in rows[0] for column in named)
    return len({len(row) for row in rows}) == 1 and len(rows[0]) > max(map(int, wanted))


def _is_quoted(path: Path, dialect: Dialect) -> bool:
    """Whether a TSV is written as pandas writes it: with quotes around fields that hold tabs, line breaks or quotes.

    In most, as in SST-2, quotes are ordinary characters. Those, read by this rule, have broken rows, or nothing that
    needs quotes.
    """
    needed, widths = False, set()
    with open_text(path, str(dialect.encoding)) as text:
        try:
            for row in csv.reader(text, delimiter=str(dialect.delimiter), strict=True):
                widths.add(len(row))
                needed = needed or any("\t" in cell or "\n" in cell or cell.startswith('"') for cell in row)
        except csv.Error:
            return False
    return needed and len(widths - {0}) == 1


def _note(path: Path, dialect: Dialect) -> str:
    """What is not as the suffix says, for the user to see."""
    delimiter, encoding = str(dialect.delimiter), str(dialect.encoding)
    said = [] if delimiter == ",\t"[_is_tsv(path)] else [f"separated by {_DELIMITERS.get(delimiter, repr(delimiter))}"]
    said += [] if encoding.startswith("utf-8") else [f"in {encoding}"]
    said += ["with quotes around fields"] if _is_tsv(path) and dialect.quoting else []
    return ", ".join(said)


def _records(text: TextIO, skipped: int, name: str, dialect: Dialect) -> Iterator[Record]:
    """The records of a file; lines with nothing but delimiters are passed over."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in itertools.islice(text, skipped, None):
            taken.append(line)
            yield line

    quoting = _QUOTING[bool(dialect.quoting)]
    reader = csv.reader(lines(), delimiter=str(dialect.delimiter), quoting=quoting, strict=True)
    while True:
        line = skipped + reader.line_num + 1
        taken.clear()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise DataError(f"{name}:{line}: a quote opens here and never closes; write it twice") from error
            yield Record(line, ItemError(f"not a CSV row: {error}"))
            continue
        if any(cell.strip() for cell in row):
            yield Record(line, row, tuple(taken) if len(taken) > 1 else ())


def _split_swallowed(
    table: Table, name: str, names: Sequence[str], several_lines: Mapping[int, Record], label: Column, dialect: Dialect
) -> None:
    """Makes each line of a record that took in rows a bad row.

    A field that begins with a stray quote goes on until the next one, over rows that are lost in it. A line of such a
    record is a row by itself: it has as many fields, and a label that other rows have. Lines of a text hardly do. (The
    last is one in any record.)
    """
    position, chosen = label if isinstance(label, int) else names.index(label), table.columns.index(label)
    single = (cells for row, (_, cells) in enumerate(table.rows) if row not in several_lines)
    known = {cells[chosen] for cells in single if not isinstance(cells, ItemError)}

    def is_row(line: str) -> bool:
        for quoting in _QUOTING.values():
            cells = next(csv.reader([line], delimiter=str(dialect.delimiter), quoting=quoting), [])
            if len(cells) == len(names) > 1 and cells[position] in known:
                return True
        return False

    for row, record in reversed(list(several_lines.items())):  # from behind: the numbers of those before stay
        if any(map(is_row, record.lines[:-1])):
            reason = f"a quote opens in line {record.line} and takes in the lines after it: write that quote twice"
            lines = range(record.line, record.line + len(record.lines))
            table.rows[row : row + 1] = [(f"{name}:{line}", ItemError(reason)) for line in lines]


def open_text(path: Path, encoding: str, errors: str = "surrogateescape") -> TextIO:
    """Opens a text file, unpacked; broken bytes stay visible, so that only their row is bad, and so do line breaks."""
    return io.TextIOWrapper(open_bytes(path), encoding, errors, newline="")


def find_encoding(path: Path, name: str, otherwise: str | None = None) -> str:
    """The encoding of a text file: told by its mark, or by being valid UTF-8, or what Western desktops write.

    Several detectors were tried on short files from such desktops (charset-normalizer 3.5 finds cp1250 in all of them):
    none beats this. What is written in letters beyond ASCII for the most part, Cyrillic say, isn't guessed.

    Args:
        otherwise: If it isn't UTF-8.

    Raises:
        DataError: it can't be told.
    """
    with open_bytes(path) as file:
        head = file.read(4096)
        if marked := [encoding for mark, encoding in _MARKS if head.startswith(mark)]:
            return marked[0]
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if 2 * head[first::2].count(0) > len(head[first::2]) > 0:
                return encoding
        file.seek(0)
        odd = []
        for line in file:
            if not line.isascii():
                with contextlib.suppress(UnicodeDecodeError):
                    line.decode()
                    return "utf-8"  # and if other lines aren't, these rows are bad
                odd.append(line)
    if otherwise or not odd:
        return otherwise or "utf-8"
    if 2 * sum(byte > 127 for line in odd for byte in line) > sum(map(len, odd)):
        raise DataError(f"{name} isn't UTF-8: name its encoding, as in data.encoding=cp1251, or save it as UTF-8")
    return "latin-1" if any(map(_NOT_IN_CP1252.search, odd)) else "cp1252"


def _is_tsv(path: Path) -> bool:
    return path.name.lower().endswith((".tsv", ".tsv.gz"))


def open_bytes(path: Path) -> BinaryIO:
    """Opens a file, unpacked if it is a ``.gz``."""
    return cast("BinaryIO", gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb"))
