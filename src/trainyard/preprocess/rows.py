"""What a table is once it has been read: some of its columns, and the rows that can't be used."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

from trainyard.base.errors import DataError, ItemError

_BROKEN = re.compile("[\0\udc80-\udcff]")
"""NUL, and what a file is opened with in place of bytes that aren't of its encoding."""
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


Cells: TypeAlias = tuple[object, ...] | ItemError
"""A row's wanted cells, or why it can't be read."""


@dataclass
class Table:
    """Some columns of a file.

    Attributes:
        columns: The wanted columns that are there.
        rows: Where each is from (``file.csv:12``), and its cells in the order of the columns; as in the file.
        note: How the file was read, if not as its suffix says.
    """

    columns: Sequence[Column]
    rows: list[tuple[str, Cells]]
    note: str = ""

    def column(self, column: Column) -> list[object]:
        """The cells of one column, of the rows that can be read."""
        position = self.columns.index(column)
        return [cells[position] for _, cells in self.rows if not isinstance(cells, ItemError)]


@dataclass(frozen=True)
class Record:
    """A row before its fields are looked into.

    Attributes:
        line: Where it starts; 1 is the first.
        cells: Its fields.
        lines: What it was read from, if it has several.
    """

    line: int
    cells: Sequence[object] | ItemError
    lines: Sequence[str] = ()


def positions_of(
    where: str, names: Sequence[str], wanted: Sequence[Column], optional: Sequence[Column]
) -> dict[Column, int]:
    """Where the columns are that are there; ``where`` is what was read."""
    positions: dict[Column, int] = {}
    for column in (*wanted, *optional):
        found = [position for position, name in enumerate(names) if column in (position, name)]
        if len(found) > 1:
            raise DataError(f"{where} has {len(found)} columns called {column!r}: give them different names")
        if not found and column in wanted:
            raise MissingColumn(where, column, names)
        if found:
            positions[column] = found[0]
    return positions


def make_table(
    name: str, records: Iterator[Record], wanted: Sequence[Column], optional: Sequence[Column], dialect: Dialect
) -> tuple[Table, list[str], dict[int, Record]]:
    """A table, the names of all its columns, and the good ones among its rows that have several lines."""
    first = next(records, Record(1, ()))
    named = any(isinstance(column, str) for column in wanted)
    has_header = named if dialect.header is None else dialect.header
    cells = () if isinstance(first.cells, ItemError) else first.cells
    names = [str(cell).strip() if has_header else str(i) for i, cell in enumerate(cells)]
    positions = positions_of(name, names, wanted, optional if has_header else ())
    table, several_lines = Table(list(positions), []), {}
    for record in records if has_header else itertools.chain([first], records):
        chosen = _chosen(record.cells, len(names), positions.values(), dialect)
        if record.lines and not isinstance(chosen, ItemError):
            several_lines[len(table.rows)] = record
        table.rows.append((f"{name}:{record.line}", chosen))
    return table, names, several_lines


def _chosen(cells: Sequence[object] | ItemError, width: int, positions: Collection[int], dialect: Dialect) -> Cells:
    if isinstance(cells, ItemError):
        return cells
    # A row with too many fields has a stray delimiter in its text: its label would be read from the wrong place.
    if len(cells) <= max(positions) or any(cells[width:]):
        return ItemError(f"the row has {len(cells)} fields instead of {width}")
    chosen = tuple([cells[position] for position in positions])
    for cell in chosen:
        if isinstance(cell, str) and (found := _BROKEN.search(cell)):
            if found[0] == "\0":
                return ItemError("the row holds a NUL character")
            is_utf8 = str(dialect.encoding).startswith("utf-8")
            return ItemError(f"the row isn't {'UTF-8' if is_utf8 else dialect.encoding}")
    return chosen
