"""Where examples of yours come from, when they are no folder, no table and not on the hub.

A source is a function here and a line under ``sources`` in ``__init__.py``. It yields rows; the library skips and
reports bad ones, holds out splits, counts copies of training examples in the test split, and caches what it encoded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.records import Row
from trainyard.data.sources import local_path

TABLE = "examples"
"""The table that is read. What you need of your database is a query: write it below."""


def read_sqlite(path: str, data: ImagesConfig | TextsConfig) -> Iterator[Row]:
    """Texts of an SQLite database, as in ``data.path=sqlite:shop.db data.text=body data.label=team``.

    Args:
        path: What follows ``sqlite:``.
        data: The section ``data``.

    Raises:
        UsageError: the config wants anything but a text of one column.
        DataError: the database can't be read, or hasn't the table or a column.
    """
    if not isinstance(data, TextsConfig) or not isinstance(data.text, str):
        raise UsageError("data.path=sqlite:... holds texts: say data.kind=texts, and name one column by data.text")
    # In brackets, a column that isn't there is an error; in quotes, SQLite takes it for the text itself.
    # In a fixed order, because an example is known by its place: splits and random draws go by it.
    query = f"SELECT rowid, [{data.text}], [{data.label}] FROM [{TABLE}] ORDER BY rowid"
    try:
        # Read-only: else a mistyped path would make an empty database.
        with closing(sqlite3.connect(f"{local_path(path).as_uri()}?mode=ro", uri=True)) as database:
            for number, text, label in database.execute(query):
                # A row that is of the test split, say, also has split="test".
                yield Row(text, label, where=f"{path}, row {number}")
    except sqlite3.Error as error:
        raise DataError(f"data.path=sqlite:{path} can't be read: {error}") from error
