"""The one form of a zip that an archive may have, so that Java unpacks exactly what was looked at here.

A zip names its files twice: before each content, which is what Java goes by, and in a directory at its end. Here both
must agree byte by byte, the files lie one behind the other without a gap, and none is compressed: what is unpacked is
no larger than the archive. Anything else that zips can be is refused before any content is read.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from trainyard.artifacts.manifest import MAX_FILES
from trainyard.base.errors import BundleError
from trainyard.base.files import CHUNK_BYTES

MAX_BYTES = 2**31 - 1
"""Of an archive. Beyond it a zip has a second form of its tables."""
MAX_NAME = 255

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s4B4H3L5H2L")
END = struct.Struct("<4s4H2LH")
VERSION = 20
"""Of the format, 2.0, in tenths. Readers refuse a file that says a later one than they know."""
FIX = "archive the model again"

_NAME = re.compile(r"[A-Za-z0-9_+=@%,. -]+(/[A-Za-z0-9_+=@%,. -]+)*")


class Place(NamedTuple):
    """Where a file's content lies in an archive."""

    start: int
    size: int
    crc: int


@dataclass(frozen=True)
class Zipped:
    """An archive whose tables were checked.

    Attributes:
        path: The archive.
        places: Its files by name.
    """

    path: Path
    places: dict[str, Place]

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file.

        Raises:
            BundleError: there is no such file, or it has more than ``limit`` bytes.
        """
        if name not in self.places:
            raise BundleError(f"{self.path} has no {name}: {FIX}")
        if self.places[name].size > limit:
            raise BundleError(f"{self.path}: {name} has more than {limit:,} bytes: {FIX}")
        with self.path.open("rb") as file:
            return b"".join(_chunks(file, self.places[name]))

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file's content."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            for chunk in _chunks(file, self.places[name]):
                digest.update(chunk)
        return digest.hexdigest()


def open_zipped(path: Path) -> Zipped:
    """Checks the tables of an archive.

    Raises:
        BundleError: it isn't a zip, or isn't of the one form that is accepted; says in what.
    """
    try:
        with path.open("rb") as file:
            return Zipped(path, _read_places(file, path.stat().st_size))
    except struct.error as error:
        raise BundleError(f"{path} is refused: its tables don't fit together; {FIX}") from error
    except _RefusedError as error:
        raise BundleError(f"{path} is refused: {error}; {FIX}") from error


class _RefusedError(Exception):
    pass


def _read_places(file: IO[bytes], size: int) -> dict[str, Place]:
    count, directory_size, directory_start = _read_end(file, size)
    file.seek(directory_start)
    directory = file.read(directory_size)
    places: dict[str, Place] = {}
    lowered: dict[str, str] = {}
    position = end = 0
    for _ in range(count):
        name, place, position = _read_record(directory, position, end)
        _check_local(file, name, place)
        if other := lowered.get(name.lower()):
            raise _RefusedError(f"it has {name} twice" if other == name else f"{name} and {other} differ by case alone")
        places[name] = place
        lowered[name.lower()] = name
        end = place.start + place.size
    if (position, end) != (directory_size, directory_start):
        raise _RefusedError("something lies between its files")
    _check_folders(places)
    return places


def _read_end(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Count of the files, bytes of the directory, and where it starts."""
    if size > MAX_BYTES:
        raise _RefusedError(f"it has more than {MAX_BYTES:,} bytes")
    if size < END.size:
        raise _RefusedError("it isn't a zip")
    file.seek(size - END.size)
    signature, disk, first_disk, here, count, length, start, comment = END.unpack(file.read(END.size))
    if signature != b"PK\x05\x06":
        raise _RefusedError("it isn't a zip, or something lies behind it")
    if count > MAX_FILES or length > MAX_FILES * (CENTRAL.size + MAX_NAME):
        raise _RefusedError(f"it has more than {MAX_FILES:,} files")
    if disk or first_disk or comment or here != count or start + length + END.size != size:
        raise _RefusedError("its tables don't fit together")
    return count, length, start


def _read_record(directory: bytes, position: int, expected_offset: int) -> tuple[str, Place, int]:
    """A file's name and place, and where the next record of the directory lies."""
    (signature, made_by, system, needed, reserved, flags, method, _, _, crc, packed, size, name_size, extra, comment,
     disk, internal, attributes, offset) = CENTRAL.unpack_from(directory, position)  # fmt: skip
    raw = directory[position + CENTRAL.size : position + CENTRAL.size + name_size]
    if signature != b"PK\x01\x02" or len(raw) != name_size:
        raise _RefusedError("its tables don't fit together")
    name = _checked_name(raw)
    kind = stat.S_IFMT(attributes >> 16)
    if flags & 1:
        raise _RefusedError(f"{name} is encrypted")
    if method or packed != size:
        raise _RefusedError(f"{name} is compressed")
    if system == 3 and kind not in (0, stat.S_IFREG):
        raise _RefusedError(f"{name} is {'a link' if kind == stat.S_IFLNK else 'no regular file'}")
    plain = (made_by, system, needed) == (VERSION, 3, VERSION)
    if not plain or flags or extra or comment or disk or reserved or internal or attributes & 0xFFFF:
        raise _RefusedError(f"{name} has properties that no archive needs")
    if offset != expected_offset:
        raise _RefusedError(f"something lies before {name}, or it overlaps another file")
    return name, Place(offset + LOCAL.size + name_size, size, crc), position + CENTRAL.size + name_size


def _check_local(file: IO[bytes], name: str, place: Place) -> None:
    """Compares what stands before a file's content with what the directory says of it."""
    file.seek(place.start - LOCAL.size - len(name))
    header, raw = file.read(LOCAL.size), file.read(len(name))
    signature, needed, flags, method, _, _, crc, packed, size, name_size, extra = LOCAL.unpack(header)
    found = (signature, needed, flags, method, crc, packed, size, name_size, extra, raw)
    if found != (b"PK\x03\x04", VERSION, 0, 0, place.crc, place.size, place.size, len(name), 0, name.encode()):
        raise _RefusedError(f"its directory says something else of {name} than the file's own header")


def _checked_name(raw: bytes) -> str:
    name = raw.decode("ascii", errors="replace")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or re.match("[A-Za-z]:", name):
        raise _RefusedError(f"the name {name!r} leads outside")
    if not _NAME.fullmatch(name) or len(raw) > MAX_NAME or any(part.endswith((" ", ".")) for part in parts):
        raise _RefusedError(f"the name {name[:MAX_NAME]!r} isn't a plain one")
    return name


def _check_folders(places: dict[str, Place]) -> None:
    """A file can't be a folder as well; nor may two folders differ by case alone."""
    folders = {"/".join(name.split("/")[:end]) for name in places for end in range(1, name.count("/") + 1)}
    spelled = {name.lower(): name for name in places}
    for folder in sorted(folders):
        if spelled.setdefault(folder.lower(), folder) != folder or folder in places:
            raise _RefusedError(f"{folder} and {spelled[folder.lower()]} are one name")


def _chunks(file: IO[bytes], place: Place) -> Iterator[bytes]:
    file.seek(place.start)
    left = place.size
    while left and (chunk := file.read(min(left, CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk
