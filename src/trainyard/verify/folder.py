"""The folder of a new export: whole or not there, and ``latest`` points at it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import LATEST, exports_folder
from trainyard.base.errors import TrainyardError
from trainyard.base.files import atomic_folder, is_writable, link


def check_folder(bundle: Bundle) -> None:
    """Finds out before the long work whether an export can be written.

    Raises:
        TrainyardError: it can't.
    """
    folder = exports_folder(bundle)
    if not is_writable(folder):
        raise TrainyardError(f"nothing can be written to {folder}: copy the bundle to a folder of yours, or free space")


@contextlib.contextmanager
def new_export(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """Yields an id and an empty folder, which becomes the export of that id when the block succeeds.

    Raises:
        TrainyardError: the disk is full, or the folder can't be written.
    """
    parent = exports_folder(bundle)
    try:
        _remove_leftovers(parent)
        name = _free_name(parent)
        with atomic_folder(parent / name) as folder:
            yield name, folder
        link(parent / LATEST, name)
    except OSError as error:
        raise TrainyardError(f"the export can't be written to {parent} ({error.strerror}): free some space") from error


def _free_name(parent: Path) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    names = (stamp if attempt == 0 else f"{stamp}-{attempt}" for attempt in range(100))
    return next(name for name in names if not (parent / name).exists())


def _remove_leftovers(parent: Path) -> None:
    """Removes what killed exports left: folders whose name holds the number of a process that is gone."""
    for folder in parent.glob(".*.tmp"):
        process = folder.name.split(".")[-2]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(folder)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
