"""Decoding every image once: to find the bad ones, to hash the contents, and to keep the pixels where they fit."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.base.cpu import available_cores
from trainyard.base.errors import ItemError
from trainyard.base.files import nearest_existing, write_json
from trainyard.config.data import ImagesConfig
from trainyard.data.alike import SIDE, looks
from trainyard.data.cache import build_once, cache_folder, load_array
from trainyard.data.records import LazyItems
from trainyard.data.threads import ordered_map
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import check_regular
from trainyard.preprocess.image import ImagePreprocessor, brightest_of_16_bits

log = logging.getLogger(__name__)

FORMAT = 4
"""Raised when decoding or the cache's files change their meaning."""
CHUNK = 32
"""Images that a thread decodes at a time."""
PROGRESS_SECONDS = 5.0
CHECK_SIZE = 8
"""Pixels to which images are decoded that are only checked: a large JPEG then takes a fraction of the work."""
DIM = 64
"""Of 255: as bright as 14 bits get in an image of 16."""
FACTS = np.dtype([("digest", "V32"), ("brightest", "i4"), ("look", "u1", (SIDE, SIDE))])
"""What decoding tells of an image: the SHA-256 of its content; the brightest value where it is grey in 16 bits and uses
a quarter of them or less, else -1; and what it looks like, see ``looks``.
"""


@dataclass(frozen=True)
class DecodedImages:
    """Examples whose pixels are cached.

    Attributes:
        pixels: Gives those of all examples of all splits, ``[n, resize, resize, 3] uint8``; read at its first call.
        rows: ``[examples] int64``, where in it those of each example are.
        preprocessor: What decoded them.
    """

    pixels: Callable[[], NDArray[np.uint8]]
    rows: NDArray[np.int64]
    preprocessor: ImagePreprocessor

    def select(self, examples: Sequence[int] | NDArray[np.int64]) -> DecodedImages:
        """Those of these examples."""
        return replace(self, rows=self.rows[examples])


def inspect_images(
    parts: Sequence[Sequence[Item]], data: ImagesConfig
) -> tuple[NDArray[np.void], dict[int, str], DecodedImages | None]:
    """Decodes the items of all parts, or reads what an earlier run found; positions count through the parts.

    Returns:
        ``[items]``, see ``FACTS``; why an item can't be used, by its position; the pixels, unless they take too much
        room. Of an item that can't be used, facts and pixels are zeros.

    Raises:
        UsageError: ``data.cache`` can't be written.
    """
    identities = [identity for part in parts for identity in _identities(part)]
    # In the order of identities the cache is the same however the items are divided: for any seed.
    order = np.array(sorted(range(len(identities)), key=identities.__getitem__), dtype=np.int64)
    content = hashlib.sha256("\n".join(identities[i] for i in order).encode("utf-8", "surrogateescape")).hexdigest()
    preprocessor = ImagePreprocessor(data.image_size, data.resize_to, *data.pixel_limits)
    folder = _folder(data, preprocessor, content)
    keep = _fits(folder, len(order), data)
    if not keep:
        preprocessor = ImagePreprocessor(CHECK_SIZE, CHECK_SIZE, *data.pixel_limits)
        folder = _folder(data, preprocessor, content)
    places = [(part, i) for part in parts for i in range(len(part))]  # read one by one: an item may be lazy
    build_once(folder, lambda temporary: _decode_all([places[i] for i in order], preprocessor, keep, temporary))
    rows = np.argsort(order)
    faults = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
    return (
        np.load(folder / "facts.npy")[rows],
        {int(order[int(row)]): reason for row, reason in faults.items()},
        DecodedImages(functools.cache(lambda: load_array(folder / "images.npy")), rows, preprocessor) if keep else None,
    )


def _identities(items: Sequence[Item]) -> list[str]:
    """What tells whether each item changed: a file's place, size and time, or the content itself."""
    if isinstance(items, LazyItems):
        return [f"{items.identity}:{row}" for row in items.rows]
    return list(map(_identity, items))


def _identity(item: Item) -> str:
    if not isinstance(item, Path):
        assert isinstance(item, bytes), "an image is a path or bytes"
        return hashlib.sha256(item).hexdigest()
    try:
        status = item.stat()
    except OSError:
        return f"{item}\0missing"
    return f"{item}\0{status.st_size}\0{status.st_mtime_ns}"


def _folder(data: ImagesConfig, preprocessor: ImagePreprocessor, content: str) -> Path:
    # `size` crops what is cached, so it isn't part of the key.
    settings = f"{FORMAT} {preprocessor.resize} {data.pixel_limits} {content}"
    return cache_folder(data.cache, "images", hashlib.sha256(settings.encode()).hexdigest()[:32])


def _fits(folder: Path, count: int, data: ImagesConfig) -> bool:
    """Whether the decoded images may be kept on the disk."""
    size = count * data.resize_to**2 * 3
    if data.cache_gb is not None:
        return size <= data.cache_gb * 1e9
    fits = folder.exists() or size <= shutil.disk_usage(nearest_existing(folder)).free / 4
    if not fits:
        log.info("%.1f GB of decoded images don't fit into a quarter of the free disk: not cached", size / 1e9)
    return fits


def _decode_all(
    places: Sequence[tuple[Sequence[Item], int]], preprocessor: ImagePreprocessor, keep: bool, folder: Path
) -> None:
    """Writes ``facts.npy``, ``faults.json`` and, to ``keep`` them, the pixels in ``images.npy``."""

    def decode_chunk(start: int) -> list[tuple[bytes, int, NDArray[np.uint8]] | str]:
        return [_decode(items[i], preprocessor) for items, i in places[start : start + CHUNK]]

    log.info("decoding %s images, this once", f"{len(places):,}")
    facts, faults = np.zeros(len(places), FACTS), {}
    shape = (len(places), preprocessor.resize, preprocessor.resize, 3)
    began = told = time.monotonic()
    with (folder / "images.npy").open("wb") if keep else nullcontext() as file:
        if file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        starts = range(0, len(places), CHUNK)
        for start, chunk in zip(starts, ordered_map(decode_chunk, starts, threads=available_cores()), strict=True):
            pixels = np.zeros((len(chunk), *shape[1:]), dtype=np.uint8)
            for i, image in enumerate(chunk):
                if isinstance(image, str):
                    faults[start + i] = image
                else:
                    facts["digest"][start + i], facts["brightest"][start + i], pixels[i] = image
            done = start + len(chunk)
            facts["look"][start:done] = looks(pixels)
            if file:
                file.write(pixels.tobytes())
            if (now := time.monotonic()) - told > PROGRESS_SECONDS:
                told, rate = now, done / (now - began)
                log.info("decoded %s of %s images (%s a second)", f"{done:,}", f"{len(places):,}", f"{rate:,.0f}")
    np.save(folder / "facts.npy", facts)
    write_json(folder / "faults.json", faults)


def _decode(item: Item, preprocessor: ImagePreprocessor) -> tuple[bytes, int, NDArray[np.uint8]] | str:
    """Reads an image once, for its digest, its brightest value and its pixels; or why it can't be used."""
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
    return hashlib.sha256(content).digest(), -1 if brightest is None else brightest, pixels
