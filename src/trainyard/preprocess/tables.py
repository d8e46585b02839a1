"""Reading columns out of tables (CSV, JSON, Parquet, Excel): the same for training and for ``predict``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainyard.base.errors import DataError, ItemError, UsageError
from trainyard.preprocess.delimited import open_bytes, read_delimited
from trainyard.preprocess.rows import Column, Dialect, Record, Table, make_table, positions_of

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
"""Each but the last two also behind ``.gz``."""
AS_FOUND = Dialect()


def table_format(path: Path) -> str:
    """The suffix that says a table's format, without ``.gz``; empty for what is no table."""
    name = path.name.lower()
    packed = name.removesuffix(".gz")
    suffix = Path(packed).suffix
    return suffix if suffix in (TABLE_SUFFIXES if packed == name else TABLE_SUFFIXES[:-2]) else ""


def is_delimited(path: Path) -> bool:
    """Whether this is a table whose first row may or may not hold the names."""
    return table_format(path) in (".csv", ".tsv", ".xlsx")


def read_table(
    path: Path,
    name: str,
    wanted: Sequence[Column],
    optional: Sequence[Column] = (),
    dialect: Dialect = AS_FOUND,
    label: Column | None = None,
) -> Table:
    """Reads columns, by name or position.

    Args:
        path: Its suffix says its format.
        name: What errors call it.
        wanted: Columns that have to be there.
        optional: Columns that are read if they are there.
        label: That among them whose values tell a row that a stray quote took in from a line of a text.

    Raises:
        MissingColumn: a wanted column isn't there.
        DataError: the file is broken as a whole.
        UsageError: no package that reads its format is installed.
    """
    try:
        match table_format(path):
            case ".parquet":
                return _read_parquet(path, name, wanted, optional)
            case ".xlsx":
                return _read_excel(path, name, wanted, optional, dialect)
            case ".jsonl" | ".ndjson" | ".json":
                return _read_json(path, name, wanted, optional)
            case _:
                return read_delimited(path, name, wanted, optional, dialect, label)
    except (OSError, EOFError) as error:  # the latter of a .gz that ends too early
        raise DataError(f"{name} can't be read: {getattr(error, 'strerror', None) or error}") from error


def _read_excel(path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column], dialect: Dialect) -> Table:
    try:
        import python_calamine
    except ImportError as error:
        raise UsageError(
            f"{name} is an Excel file, which takes the package python-calamine: install it, or save it as CSV"
        ) from error
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(str(path))
        rows = workbook.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except python_calamine.CalamineError as error:
        raise DataError(f"{name} isn't an Excel file ({error}): save it again, or as CSV") from error
    records = (Record(number, row) for number, row in enumerate(rows, start=1) if any(cell != "" for cell in row))
    table, *_ = make_table(name, records, wanted, optional, dialect)
    sheets = workbook.sheet_names
    table.note = f"its first sheet, {sheets[0]}, of {len(sheets)}" if len(sheets) > 1 else ""
    return table


def _read_json(path: Path, name: str, wanted: Sequence[Column], optional: Sequence[Column]) -> Table:
    names: dict[str, None] = {}
    rows: list[tuple[str, dict[str, object] | ItemError]] = []
    for number, value in _json_rows(path, name):
        row = value if isinstance(value, dict | ItemError) else ItemError("not a JSON object")
        if isinstance(row, dict):
            inner = ((key, inside) for key, inside in row.items() if isinstance(inside, dict))
            # The keys of an object inside are columns, too: meta.topic.
            row |= {f"{key}.{one}": cell for key, inside in inner for one, cell in inside.items()}
            names.update(dict.fromkeys(row))
        rows.append((f"{name}:{number}", row))
    broken = [(where, row) for where, row in rows if isinstance(row, ItemError)]
    if broken and len(broken) == len(rows):  # what is wrong with each says more than that a column is missing
        return Table(wanted, list(broken))
    # A key may be absent where its value is: the column is there if any row has it.
    found = list(names)
    positions = positions_of(name, found, wanted, optional)
    keys = [found[i] for i in positions.values()]
    cells = ((where, row if isinstance(row, ItemError) else tuple(map(row.get, keys))) for where, row in rows)
    return Table(list(positions), list(cells))


def _json_rows(path: Path, name: str) -> Iterator[tuple[int, Any]]:
    """A value, or what is wrong with it, for each line; or for each element, where the file is one list."""
    with open_bytes(path) as file:
        if table_format(path) == ".json":
            content = file.read()
            if content.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"["):
                try:
                    yield from enumerate(json.loads(content.decode("utf-8-sig")), start=1)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{name} isn't JSON ({error}): write it again") from error
                return
            file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                if line.strip(b" \t\r\n\xef\xbb\xbf"):
                    yield number, json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, of its depth
                yield number, ItemError(f"not JSON: {error}")


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
            positions = positions_of(name, names, wanted, optional)
            content = parquet.read(columns=[names[i] for i in positions.values()])
    except pa.ArrowException as error:
        reason = str(error).rstrip(".")
        raise DataError(f"{name} isn't a Parquet file ({reason}): write it again, or save it as CSV") from error
    columns = [content.column(names[i]).to_pylist() for i in positions.values()]
    return Table(list(positions), [(f"{name}:{row}", cells) for row, cells in enumerate(zip(*columns, strict=True), 1)])
