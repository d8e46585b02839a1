"""Files in folders, by the same rules in training and in ``predict``: at any depth, nothing hidden or of the system."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from trainyard.base.errors import ItemError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo")
)
TEXT_SUFFIXES = frozenset((".txt", ""))
"""Of a file that is one text, below a folder for its class; corpora of messages have no suffix at all."""
SYSTEM_NAMES = frozenset(
    [
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "lost+found",
        "__macosx",
        "thumbs.db",
        "desktop.ini",
    ]
) | {"system volume information"}
"""What a NAS, Windows, macOS or a file system puts beside a person's files, in lower case."""


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_text(path: Path) -> bool:
    """Whether a file is one text by its suffix."""
    return path.suffix.lower() in TEXT_SUFFIXES


def is_visible(name: str) -> bool:
    """Whether a person sees a file or folder of this name and means it."""
    return not name.startswith(".") and name.lower() not in SYSTEM_NAMES


def check_regular(path: Path) -> None:
    """Refuses what is waited for or read without end: a pipe, a socket, a device.

    Raises:
        ItemError: it isn't a regular file.
        OSError: it isn't there, or is a loop of links.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ItemError(f"{path.name} isn't a regular file")


def read_text(path: Path) -> str:
    """A file as one text: in UTF-8 as what is written today, or in what Windows and the web wrote before.

    Raises:
        ItemError: it holds none.
    """
    try:
        check_regular(path)
        content = path.read_bytes()
    except OSError as error:
        raise ItemError(f"can't be read ({error.strerror})") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("latin-1")
    for encoding in ("cp1252", "utf-8-sig") if not marked else ("utf-16",):
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
    if not text.strip() or "\0" in text:
        raise ItemError("isn't a text" if text.strip() else "empty")
    return text


def files_below(folder: Path, above: Sequence[Path] = ()) -> Iterator[Path]:
    """All files at any depth, folder by folder; through links too, but through no folder twice.

    Args:
        above: Folders that a link may lead back to, besides this one.

    Raises:
        OSError: a folder may not be read.
    """
    seen = {_identity(place) for place in (*above, folder)}

    def is_new(place: Path) -> bool:
        count = len(seen)
        seen.add(_identity(place))
        return len(seen) > count

    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = [name for name in sorted(folders) if is_visible(name) and is_new(Path(place, name))]
        parent = Path(place)
        yield from (parent / name for name in sorted(names) if is_visible(name))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error
