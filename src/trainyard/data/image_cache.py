"""Decoding every image once: to find the bad ones, to hash the contents, and to keep the pixels where they fit."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from trainyard.base.cpu import available_cores
from trainyard.base.errors import ItemError
from trainyard.base.files import write_json
from trainyard.config.data import ImagesConfig
from trainyard.data.cache import build_once, cache_folder, load_array
from trainyard.data.records import LazyItems
from trainyard.data.threads import ordered_map
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import check_regular
from trainyard.preprocess.image import ImagePreprocessor, brightest_of_16_bits

log = logging.getLogger(__name__)

FORMAT = 3
"""Raised when decoding or the cache's files change their meaning."""
CHUNK = 32
"""Images that a thread decodes at a time."""
PROGRESS_SECONDS = 5.0
CHECK_SIZE = 8
"""Pixels to which images are decoded that are only checked: a large JPEG then takes a fraction of the work."""
DIGEST_BYTES = 32
DIM = 64
"""Of 255: as bright as 14 bits get in an image of 16."""

Place: TypeAlias = tuple[Sequence[Item], int]
"""An item that hasn't been read: a sequence and the position in it."""


@dataclass(frozen=True)
class PixelFile:
    """``images.npy``, read when it is first asked for and shared by all splits."""

    path: Path

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """``[n, resize, resize, 3] uint8``."""
        return cast("NDArray[np.uint8]", load_array(self.path))


@dataclass(frozen=True)
class DecodedImages:
    """Examples whose pixels are cached.

    Attributes:
        file: The pixels of all examples.
        rows: ``[examples] int64``, where in it those of each example are.
        preprocessor: What decoded them.
    """

    file: PixelFile
    rows: NDArray[np.int64]
    preprocessor: ImagePreprocessor

    def select(self, examples: Sequence[int] | NDArray[np.int64]) -> DecodedImages:
        """Those of these examples."""
        return replace(self, rows=self.rows[examples])


@dataclass(frozen=True)
class Inspection:
    """What decoding told of some items.

    Attributes:
        digests: SHA-256 of each item's content.
        faults: Why an item can't be used, by its position; such an item has no digest.
        decoded: The pixels, unless they take too much room.
        dim: The brightest value of each grey image of 16 bits that uses a quarter of them or less.
    """

    digests: list[bytes]
    faults: dict[int, str]
    decoded: DecodedImages | None
    dim: list[int]


def inspect_images(parts: Sequence[Sequence[Item]], data: ImagesConfig) -> Inspection:
    """Decodes the items of all parts, or reads what an earlier run found; positions count through the parts.

    Raises:
        UsageError: ``data.cache`` can't be written.
    """
    identities = [identity for part in parts for identity in _identities(part)]
    places: list[Place] = [(part, i) for part in parts for i in range(len(part))]
    # In the order of identities the cache is the same however the items are divided: for any seed.
    order = np.array(sorted(range(len(places)), key=identities.__getitem__), dtype=np.int64)
    digest = hashlib.sha256("\n".join(identities[i] for i in order).encode("utf-8", "surrogateescape"))
    preprocessor = ImagePreprocessor(data.image_size, data.resize_to, *data.pixel_limits)
    folder = _folder(data, preprocessor, digest.hexdigest())
    keep = _fits(folder, len(places), data)
    if not keep:
        preprocessor = ImagePreprocessor(CHECK_SIZE, CHECK_SIZE, *data.pixel_limits)
        folder = _folder(data, preprocessor, digest.hexdigest())
    build_once(folder, lambda temporary: _decode_all([places[i] for i in order], preprocessor, keep, temporary))
    return _read(folder, order, preprocessor, keep)


def _identities(items: Sequence[Item]) -> list[str]:
    """What tells whether each item changed: a file's place, size and time, or the content itself."""
    if isinstance(items, LazyItems):
        return [f"{items.identity}:{row}" for row in items.rows]
    return [_file_identity(item) if isinstance(item, Path) else _content_identity(item) for item in items]


def _file_identity(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path}\0missing"
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _content_identity(item: Item) -> str:
    assert isinstance(item, bytes), "an image is a path or bytes"
    return hashlib.sha256(item).hexdigest()


def _folder(data: ImagesConfig, preprocessor: ImagePreprocessor, items: str) -> Path:
    # `size` crops what is cached, so it isn't part of the key.
    settings = f"{FORMAT} {preprocessor.resize} {data.pixel_limits} {items}"
    return cache_folder(data.cache, "images", hashlib.sha256(settings.encode()).hexdigest()[:32])


def _fits(folder: Path, count: int, data: ImagesConfig) -> bool:
    """Whether the decoded images may be kept on the disk."""
    size = count * data.resize_to**2 * 3
    if data.cache_gb is not None:
        return size <= data.cache_gb * 1e9
    if folder.exists():
        return True
    place = next(parent for parent in folder.parents if parent.exists())
    fits = size <= shutil.disk_usage(place).free / 4
    if not fits:
        log.info("%.1f GB of decoded images don't fit into a quarter of the free disk: not cached", size / 1e9)
    return fits


def _decode_all(places: Sequence[Place], preprocessor: ImagePreprocessor, keep: bool, folder: Path) -> None:
    """Writes ``digests.npy``, ``faults.json``, ``dim.json`` and, to ``keep`` them, the pixels in ``images.npy``."""
    log.info("decoding %s images, this once", f"{len(places):,}")
    digests = np.zeros((len(places), DIGEST_BYTES), dtype=np.uint8)
    faults: dict[int, str] = {}
    dim: list[int] = []
    shape = (len(places), preprocessor.resize, preprocessor.resize, 3)
    with (folder / "images.npy").open("wb") if keep else nullcontext() as pixels:
        if pixels:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(pixels, header)
        for row, outcome in enumerate(_with_progress(_decoded(places, preprocessor), len(places))):
            if isinstance(outcome, str):
                faults[row] = outcome
            else:
                digests[row] = np.frombuffer(outcome.digest, dtype=np.uint8)
                dim += [outcome.brightest] if outcome.brightest is not None else []
            if pixels:
                pixels.write(bytes(math.prod(shape[1:])) if isinstance(outcome, str) else outcome.pixels.tobytes())
    np.save(folder / "digests.npy", digests)
    write_json(folder / "faults.json", faults)
    write_json(folder / "dim.json", dim)


@dataclass(frozen=True)
class _Image:
    digest: bytes
    pixels: NDArray[np.uint8]
    brightest: int | None


def _decoded(places: Sequence[Place], preprocessor: ImagePreprocessor) -> Iterator[_Image | str]:
    """Each image in order, or why it is none. Chunks make up for the cost of handing work to a thread."""

    def decode_chunk(start: int) -> list[_Image | str]:
        return [_decode(items[i], preprocessor) for items, i in places[start : start + CHUNK]]

    for chunk in ordered_map(decode_chunk, range(0, len(places), CHUNK), threads=available_cores()):
        yield from chunk


def _decode(item: Item, preprocessor: ImagePreprocessor) -> _Image | str:
    """Reads an image once, for its pixels and its hash."""
    try:
        if isinstance(item, Path):
            check_regular(item)
        content = item.read_bytes() if isinstance(item, Path) else item
        pixels = preprocessor.encode_wide(content)
    except OSError as error:
        return f"{error.strerror or error}: {item!s}"
    except ItemError as error:
        return str(error)
    assert isinstance(content, bytes), "what was decoded are bytes"
    brightest = brightest_of_16_bits(content) if pixels.max() <= DIM else None
    return _Image(hashlib.sha256(content).digest(), pixels, brightest)


def _with_progress(images: Iterator[_Image | str], count: int) -> Iterator[_Image | str]:
    """Passes the images on and logs a line every few seconds."""
    start = last = time.monotonic()
    for done, image in enumerate(images, start=1):
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            rate = done / (last - start)
            log.info("decoded %s of %s images (%s a second)", f"{done:,}", f"{count:,}", f"{rate:,.0f}")
        yield image


def _read(folder: Path, order: NDArray[np.int64], preprocessor: ImagePreprocessor, keep: bool) -> Inspection:
    """Reads a finished cache back into the items' own order."""
    digests = np.load(folder / "digests.npy")
    faults = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    rows = np.empty(len(order), dtype=np.int64)
    rows[order] = np.arange(len(order))
    decoded = DecodedImages(PixelFile(folder / "images.npy"), rows, preprocessor) if keep else None
    return Inspection(
        [digest.tobytes() for digest in digests[rows]],
        {int(order[int(row)]): reason for row, reason in faults.items()},
        decoded,
        json.loads((folder / "dim.json").read_text(encoding="utf-8")),
    )
