"""Reading columns out of CSV, TSV, JSONL and Parquet files: the same for training and for ``predict``."""

from __future__ import annotations

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.base.errors import DataError, UsageError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_FIELD_CHARS = 2**31 - 1  # the csv module's own limit of 131,072 is too small for documents

Column = str | int
"""A column by name or position (0 is the first)."""


class MissingColumn(DataError):
    """A wanted column isn't there. Whoever catches it knows what the user can do about it, and says so.

    Args:
        where: What was read.
        column: The column.
        names: Those that are there.
    """

    def __init__(self, where: str, column: Column, names: Sequence[str]) -> None:
        listed = ", ".join(repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names[:20])
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        super().__init__(f"{where} has no column {column!r}, it has {listed or 'none'}{more}")
        self.names = names


@dataclass(frozen=True)
class BadRow:
    """A row that can't be read.

    Attributes:
        where: ``file.csv:12``.
        reason: Half a sentence.
        before: How many good rows come before it.
    """

    where: str
    reason: str
    before: int


@dataclass
class Table:
    """Some columns of a file.

    Attributes:
        columns: The wanted columns that are there; all of one length.
        sources: ``file.csv:12`` for each row.
        bad: Rows that can't be read; they are in no column.
    """

    columns: dict[Column, list[object]]
    sources: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def in_order(self, wanted: Sequence[Column]) -> Iterator[tuple[str, list[object]] | BadRow]:
        """Gives good rows (source and wanted cells) and bad ones as they follow each other in the file."""
        waiting = deque(self.bad)
        for row, source in enumerate(self.sources):
            while waiting and waiting[0].before <= row:
                yield waiting.popleft()
            yield source, [self.columns[column][row] for column in wanted]
        yield from waiting

    def add_bad(self, where: str, reason: str) -> None:
        """Notes a row that comes after the good ones so far."""
        self.bad.append(BadRow(where, reason, len(self.sources)))


def read_table(
    path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column] = (), header: bool | None = None
) -> Table:
    """Reads columns, by name or position.

    Args:
        path: Its suffix says its format.
        name: What errors call it.
        wanted: Columns that have to be there.
        optional: Columns that are read if they are there.
        header: Whether the first row of a CSV or TSV holds names; by default if a wanted column is given by name.

    Raises:
        MissingColumn: a wanted column isn't there.
        DataError: the file is broken as a whole.
        UsageError: it is Parquet, and no package that reads it is installed.
    """
    try:
        match path.suffix.lower():
            case ".parquet":
                return _read_parquet(path, name, wanted, optional)
            case ".jsonl" | ".ndjson":
                return _read_jsonl(path, name, wanted, optional)
            case _:
                return _read_delimited(path, name, wanted, optional, header)
    except OSError as error:
        raise DataError(f"{name} can't be read: {error.strerror or error}") from error


def is_delimited(path: Path) -> bool:
    """Whether this is a table whose first row may or may not hold the names."""
    return path.suffix.lower() in (".csv", ".tsv")


def refuse_utf16(path: Path, name: str) -> None:
    """Raises ``DataError`` if a text file is UTF-16, as spreadsheets export it."""
    with path.open("rb") as binary:
        if binary.read(2) in _UTF16_MARKS:
            raise DataError(f"{name} is UTF-16: save it as UTF-8")


def find_column(names: Sequence[str], column: Column) -> int | None:
    """Position of a column given by name or position."""
    if isinstance(column, int):
        return column if 0 <= column < len(names) else None
    return names.index(column) if column in names else None


def _positions(
    where: str, names: Sequence[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> dict[Column, int]:
    positions: dict[Column, int] = {}
    for column in (*wanted, *optional):
        if isinstance(column, str) and names.count(column) > 1:
            raise DataError(f"{where} has {names.count(column)} columns called {column!r}: give them different names")
        position = find_column(names, column)
        if position is not None:
            positions[column] = position
        elif column in wanted:
            raise MissingColumn(where, column, names)
    return positions


# CSV and TSV


def _read_delimited(
    path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column], header: bool | None
) -> Table:
    table = Table(columns={})
    rows = _records(path, name, table)
    first_line, first = next(rows, (1, []))
    has_header = any(isinstance(column, str) for column in wanted) if header is None else header
    names = [cell.strip() for cell in first] if has_header else [str(i) for i in range(len(first))]
    positions = _positions(name, names, wanted, optional if has_header else ())
    table.columns = {column: [] for column in positions}
    if not has_header:
        _add_row(table, f"{name}:{first_line}", first, len(names), positions)
    for line, row in rows:
        _add_row(table, f"{name}:{line}", row, len(names), positions)
    return table


def _records(path: Path, name: str, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yields the line where each record starts (1 is the first) and its fields; blank lines are passed over."""
    refuse_utf16(path, name)
    csv.field_size_limit(_MAX_FIELD_CHARS)
    # utf-8-sig drops a byte order mark; surrogateescape keeps broken bytes visible, so that only their row is bad.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        if path.suffix.lower() == ".tsv":
            # Quotes are ordinary characters in a TSV, as in SST-2.
            reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(text, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    raise DataError(f"{name}:{line}: a quote opens here and never closes; write it twice") from error
                table.add_bad(f"{name}:{line}", f"not a CSV row: {error}")
                continue
            if row:
                yield line, row


def _add_row(table: Table, where: str, row: list[str], width: int, positions: dict[Column, int]) -> None:
    reason = _fault(row, width, positions)
    if reason:
        table.add_bad(where, reason)
        return
    for column, position in positions.items():
        table.columns[column].append(row[position])
    table.sources.append(where)


def _fault(row: list[str], width: int, positions: dict[Column, int]) -> str | None:
    # A row with too many fields has a stray delimiter in its text: its label would be read from the wrong place.
    if len(row) <= max(positions.values()) or any(row[width:]):
        return f"the row has {len(row)} fields instead of {width}"
    for position in positions.values():
        if not row[position].isascii() and any("\udc80" <= char <= "\udcff" for char in row[position]):
            return "the row isn't UTF-8"
        if "\0" in row[position]:
            return "the row holds a NUL character"
    return None


# JSONL and Parquet


def _read_jsonl(path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    table = Table(columns={column: [] for column in wanted})
    names: dict[str, None] = {}
    rows: list[dict[str, object]] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{name}:{number}"
            if not line.strip(b" \t\r\n\xef\xbb\xbf"):
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of its depth
                table.add_bad(where, f"not JSON: {error}")
                continue
            if not isinstance(row, dict):
                table.add_bad(where, "not a JSON object")
                continue
            names.update(dict.fromkeys(row))
            rows.append(row)
            table.sources.append(where)
    if table.bad and not rows:
        return table  # what is wrong with each row says more than that a column is missing
    # A key may be absent where its value is: the column is there if any row has it.
    found = list(names)
    positions = _positions(name, found, wanted, optional)
    table.columns = {column: [row.get(found[i]) for row in rows] for column, i in positions.items()}
    return table


def _read_parquet(path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError(
            f"{name} is Parquet, which takes the package pyarrow: pip install pyarrow, or save it as CSV or JSONL"
        ) from error
    try:
        with pq.ParquetFile(path) as parquet:
            names = parquet.schema_arrow.names
            positions = _positions(name, names, wanted, optional)
            content = parquet.read(columns=[names[i] for i in positions.values()])
    except pa.ArrowException as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{name} isn't a Parquet file ({reason}): write it again, or save it as CSV") from error
    columns = {column: content.column(names[i]).to_pylist() for column, i in positions.items()}
    return Table(columns, [f"{name}:{row}" for row in range(1, content.num_rows + 1)])
