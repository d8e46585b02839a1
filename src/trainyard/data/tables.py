"""Reading columns out of CSV, TSV, JSONL and Parquet files."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.config.data import Column
from trainyard.data.records import BadExample
from trainyard.errors import DataError, UsageError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_FIELD_CHARS = 2**31 - 1  # the csv module's own limit of 131,072 is too small for documents


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
    bad: list[BadExample] = field(default_factory=list)


@dataclass(frozen=True)
class TableFile:
    """A file to be read.

    Attributes:
        path: Its suffix says its format.
        name: What reports call it.
        header: ``data.header``.
    """

    path: Path
    name: str
    header: bool | None = None

    def read(self, wanted: Sequence[Column], optional: Sequence[Column] = ()) -> Table:
        """Reads columns, by name or position.

        Raises:
            DataError: a wanted column isn't there (lists those that are), or the file is broken as a whole.
            UsageError: ``data.header`` and the columns contradict each other.
        """
        read = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
        try:
            return read.get(self.path.suffix.lower(), _read_delimited)(self, wanted, optional)
        except OSError as error:
            raise DataError(f"{self.name} can't be read: {error.strerror or error}") from error


def find_column(names: Sequence[str], column: Column) -> int | None:
    """Position of a column given by name or position."""
    if isinstance(column, int):
        return column if 0 <= column < len(names) else None
    return names.index(column) if column in names else None


def missing_column(where: str, column: Column, names: Sequence[str]) -> DataError:
    """The error for a column that isn't there; lists those that are."""
    listed = ", ".join(repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return DataError(
        f"{where} has no column {column!r}, it has {listed or 'none'}{more}: "
        "name the columns with data.label and data.text (or data.image)"
    )


def _positions(
    where: str, names: Sequence[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> dict[Column, int]:
    positions: dict[Column, int] = {}
    for column in (*wanted, *optional):
        position = find_column(names, column)
        if position is not None:
            positions[column] = position
        elif column in wanted:
            raise missing_column(where, column, names)
    return positions


# CSV and TSV


def _read_delimited(file: TableFile, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    named = [column for column in wanted if isinstance(column, str)]
    if file.header is False and named:
        raise UsageError(
            f"data.header=false leaves the columns without names, but {named[0]!r} is one: "
            "give positions, such as data.text=0 data.label=1"
        )
    table = Table(columns={})
    rows = _records(file, table.bad)
    first_line, first = next(rows, (1, []))
    has_header = bool(named) if file.header is None else file.header
    names = [name.strip() for name in first] if has_header else [str(i) for i in range(len(first))]
    try:
        positions = _positions(file.name, names, wanted, optional if has_header else ())
    except DataError as error:
        raise _without_header_hint(error, file, named) from None
    table.columns = {column: [] for column in positions}
    if not has_header:
        _add_row(table, file, first_line, first, len(names), positions)
    for line, row in rows:
        _add_row(table, file, line, row, len(names), positions)
    if file.header is None and not named:
        _check_first_label(table, wanted[-1])
    return table


def _records(file: TableFile, bad: list[BadExample]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line where each record starts (1 is the first) and its fields; blank lines are passed over."""
    with file.path.open("rb") as binary:
        if binary.read(2) in _UTF16_MARKS:
            raise DataError(f"{file.name} is UTF-16: save it as UTF-8")
    csv.field_size_limit(_MAX_FIELD_CHARS)
    # utf-8-sig drops a byte order mark; surrogateescape keeps broken bytes visible, so that only their row is bad.
    with file.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        if file.path.suffix.lower() == ".tsv":
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
                    raise DataError(
                        f"{file.name}:{line}: a quote opens here and never closes; write it twice"
                    ) from error
                bad.append(BadExample(f"{file.name}:{line}", f"not a CSV row: {error}"))
                continue
            if row:
                yield line, row


def _add_row(
    table: Table, file: TableFile, line: int, row: list[str], width: int, positions: dict[Column, int]
) -> None:
    where = f"{file.name}:{line}"
    reason = _fault(row, width, positions)
    if reason:
        table.bad.append(BadExample(where, reason))
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


def _without_header_hint(error: DataError, file: TableFile, named: Sequence[str]) -> DataError:
    if not named or file.header is not None:
        return error
    return DataError(f"{error}; or, if the first row isn't a header, data.header=false and positions from 0")


def _check_first_label(table: Table, label: Column) -> None:
    """Columns given by position say nothing of a header: a first row with a label of its own looks like one."""
    labels = Counter(table.columns[label])
    first = table.columns[label][:1]
    if first and labels[first[0]] == 1 and len(labels) > 2 and max(labels.values()) > 1:
        raise DataError(
            f"{table.sources[0]}: the label {first[0]!r} occurs in the first row only; "
            "say data.header=true if that row holds column names, data.header=false if not"
        )


# JSONL and Parquet


def _read_jsonl(file: TableFile, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    table = Table(columns={})
    names: dict[str, None] = {}
    rows: list[dict[str, object]] = []
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file.name}:{number}"
            if not line.strip(b" \t\r\n\xef\xbb\xbf"):
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as error:  # of JSON or of UTF-8
                table.bad.append(BadExample(where, f"not JSON: {error}"))
                continue
            if not isinstance(row, dict):
                table.bad.append(BadExample(where, "not a JSON object"))
                continue
            names.update(dict.fromkeys(row))
            rows.append(row)
            table.sources.append(where)
    # A key may be absent where its value is: the column is there if any row has it.
    found = list(names)
    positions = _positions(file.name, found, wanted, optional)
    table.columns = {column: [row.get(found[i]) for row in rows] for column, i in positions.items()}
    return table


def _read_parquet(file: TableFile, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            names = parquet.schema_arrow.names
            positions = _positions(file.name, names, wanted, optional)
            content = parquet.read(columns=[names[i] for i in positions.values()])
    except pa.ArrowException as error:
        raise DataError(f"{file.name} isn't a Parquet file: {error}") from error
    columns = {column: content.column(names[i]).to_pylist() for column, i in positions.items()}
    return Table(columns, [f"{file.name}:{row}" for row in range(1, content.num_rows + 1)])
