"""Writing files so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20

_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\]")
"""A list of numbers in indented JSON."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside ``path``; on success it is synced and renamed to ``path``.

    Raises:
        OSError: the disk is full or the folder can't be written; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def nearest_existing(path: Path) -> Path:
    """A path or, where it isn't there yet, the nearest parent that is."""
    there = path.expanduser().absolute()
    while not there.exists():
        there = there.parent
    return there


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder or, where it isn't there yet, in the nearest parent that is."""
    try:
        # Only this tells: permissions say nothing to root, nor of a file system that is read-only.
        with tempfile.TemporaryFile(dir=nearest_existing(folder)):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes ``path`` when the block succeeds and vanishes when it fails.

    A folder that lies at ``path`` already is replaced. What a killed writer left behind is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(leftover)
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _sync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link(path: Path, target: str) -> None:
    """Makes ``path`` a link to ``target``, in one step also where it is one to something else."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, atomically. A byte of a file's name that isn't UTF-8 becomes ``\udcff`` or the like."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Writes ``value`` as indented JSON, atomically, a list of numbers on one line: a confusion matrix row by row.

    Raises:
        ValueError: a number is NaN or infinite; JSON has neither.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # No string is hit: within one, a line break is written as \n.
    text = _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text)
    write_text(path, text + "\n")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Makes a rename in this folder survive a power cut."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
