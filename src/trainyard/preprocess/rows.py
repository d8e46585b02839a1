"""What a table is once it has been read: some of its columns, and the rows that can't be used."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from trainyard.base.errors import DataError

Column = str | int
"""A column by name or position (0 is the first)."""


@dataclass(frozen=True)
class Dialect:
    """How a CSV or TSV is written. What is ``None`` is found out from the file.

    Attributes:
        header: Whether its first row holds names; by default if a wanted column is given by name.
        delimiter: Parts the fields.
        encoding: Of a file that isn't UTF-8.
        quoting: Whether a field between quotes may hold delimiters, line breaks, and quotes written twice.
    """

    header: bool | None = None
    delimiter: str | None = None
    encoding: str | None = None
    quoting: bool | None = None

    @staticmethod
    def of(data: Mapping[str, object]) -> Dialect:
        """What a config's section ``data`` says; one that was sealed before a key existed doesn't have it."""
        return Dialect(**{key.name: data.get(key.name) for key in fields(Dialect)})  # type: ignore[arg-type]


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
        self.column, self.names = column, names


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
        note: How the file was read, if not as its suffix says.
    """

    columns: dict[Column, list[object]]
    sources: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    note: str = ""

    def in_order(self, wanted: Sequence[Column]) -> Iterator[tuple[str, list[object]] | BadRow]:
        """Gives good rows (source and wanted cells) and bad ones as they follow each other in the file."""
        waiting = deque(self.bad)
        for row, source in enumerate(self.sources):
            while waiting and waiting[0].before <= row:
                yield waiting.popleft()
            yield source, [self.columns[column][row] for column in wanted]
        yield from waiting

    def add(self, where: str, cells: Mapping[Column, object]) -> None:
        """Notes a good row."""
        for column, cell in cells.items():
            self.columns[column].append(cell)
        self.sources.append(where)

    def add_bad(self, where: str, reason: str) -> None:
        """Notes a row that comes after the good ones so far."""
        self.bad.append(BadRow(where, reason, len(self.sources)))


@dataclass(frozen=True)
class Record:
    """A row before its fields are looked into.

    Attributes:
        line: Where it starts; 1 is the first.
        cells: Its fields.
        lines: What it was read from, if it has several.
    """

    line: int
    cells: Sequence[object]
    lines: Sequence[str] = ()


def find_column(names: Sequence[str], column: Column) -> int | None:
    """Position of a column given by name or position."""
    if isinstance(column, int):
        return column if 0 <= column < len(names) else None
    return names.index(column) if column in names else None


def positions_of(
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


def fill(
    table: Table,
    name: str,
    records: Iterator[Record],
    wanted: Sequence[Column],
    optional: Sequence[Column],
    dialect: Dialect,
) -> tuple[list[str], dict[int, Record]]:
    """Parts the records into columns and bad rows; gives the names, and those good ones that have several lines."""
    first = next(records, Record(1, []))
    named = any(isinstance(column, str) for column in wanted)
    has_header = named if dialect.header is None else dialect.header
    names = [str(cell).strip() for cell in first.cells] if has_header else [str(i) for i in range(len(first.cells))]
    positions = positions_of(name, names, wanted, optional if has_header else ())
    table.columns = {column: [] for column in positions}
    several_lines: dict[int, Record] = {}
    for record in records if has_header else itertools.chain([first], records):
        where = f"{name}:{record.line}"
        reason = _fault(record.cells, len(names), positions, dialect)
        if reason:
            table.add_bad(where, reason)
            continue
        if record.lines:
            several_lines[len(table.sources)] = record
        table.add(where, {column: record.cells[position] for column, position in positions.items()})
    return names, several_lines


def _fault(cells: Sequence[object], width: int, positions: Mapping[Column, int], dialect: Dialect) -> str | None:
    # A row with too many fields has a stray delimiter in its text: its label would be read from the wrong place.
    if len(cells) <= max(positions.values()) or any(cells[width:]):
        return f"the row has {len(cells)} fields instead of {width}"
    for position in positions.values():
        cell = cells[position]
        if not isinstance(cell, str) or (cell.isascii() and "\0" not in cell):
            continue
        if any("\udc80" <= char <= "\udcff" for char in cell):
            return f"the row isn't {'UTF-8' if str(dialect.encoding).startswith('utf-8') else dialect.encoding}"
        if "\0" in cell:
            return "the row holds a NUL character"
    return None
