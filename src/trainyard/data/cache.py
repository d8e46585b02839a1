"""Folders that one process of a machine makes and all others read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import UsageError
from trainyard.base.files import atomic_folder
from trainyard.base.memory import memory
from trainyard.data.threads import local_world_size

log = logging.getLogger(__name__)


def cache_folder(cache: str, kind: str, key: str) -> Path:
    """Where what ``key`` identifies is cached; ``cache`` is ``data.cache``."""
    return Path(cache).expanduser() / kind / key


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes ``folder`` by ``build(temporary folder)`` unless it is there. Of several processes one builds, the others
    wait; a killed builder leaves nothing that counts.

    Raises:
        UsageError: the cache can't be written.
    """
    from filelock import FileLock

    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not folder.exists():
                with atomic_folder(folder) as temporary:
                    build(temporary)
    except OSError as error:
        raise UsageError(f"the cache can't be written ({error}): say data.cache=FOLDER") from error


def load_array(path: Path) -> NDArray[Any]:
    """Reads an array into memory if that has room for it in every process, else maps the file, shared by all."""
    room = memory().free / 4 / local_world_size()
    mapped = path.stat().st_size > room
    if mapped:
        log.info("%s stays on the disk: it is larger than a quarter of the free memory", path)
    array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None)
    return array
