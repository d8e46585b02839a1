"""Files in folders, by the same rules in training and in ``predict``: at any depth, nothing that is hidden."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo")
)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in IMAGE_SUFFIXES


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
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and is_new(Path(place, name))]
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error
