"""Tables of examples: the readers are the core's; here errors name the keys of a config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import Column
from trainyard.preprocess.tables import TABLE_SUFFIXES, MissingColumn, Table, find_column, is_delimited, read_table

__all__ = ["TABLE_SUFFIXES", "Table", "TableFile", "find_column", "missing_column"]


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
        """Reads columns, by name or position; the last of the wanted ones is the label.

        Raises:
            DataError: a wanted column isn't there (lists those that are), or the file is broken as a whole.
            UsageError: ``data.header`` and the columns contradict each other.
        """
        named = [column for column in wanted if isinstance(column, str)]
        if is_delimited(self.path) and self.header is False and named:
            raise UsageError(
                f"data.header=false leaves the columns without names, but {named[0]!r} is one: "
                "give positions, such as data.text=0 data.label=1"
            )
        try:
            table = read_table(self.path, self.name, wanted, optional, self.header)
        except MissingColumn as error:
            hint = "; or, if the first row isn't a header, data.header=false and positions from 0"
            may_be_data = is_delimited(self.path) and self.header is None and named
            raise DataError(f"{_with_fix(error)}{hint if may_be_data else ''}") from None
        if is_delimited(self.path) and self.header is None and not named:
            _check_first_label(table, wanted[-1])
        return table


def missing_column(where: str, column: Column, names: Sequence[str]) -> DataError:
    """The error for a column that isn't there; lists those that are."""
    return DataError(_with_fix(MissingColumn(where, column, names)))


def _with_fix(error: MissingColumn) -> str:
    return f"{error}: name the columns with data.label and data.text (or data.image)"


def _check_first_label(table: Table, label: Column) -> None:
    """Columns given by position say nothing of a header: a first row with a label of its own looks like one."""
    labels = Counter(table.columns[label])
    first = table.columns[label][:1]
    if first and labels[first[0]] == 1 and len(labels) > 2 and max(labels.values()) > 1:
        raise DataError(
            f"{table.sources[0]}: the label {first[0]!r} occurs in the first row only; "
            "say data.header=true if that row holds column names, data.header=false if not"
        )
