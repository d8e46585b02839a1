"""Records ready to be batched: pixels and token ids from their caches, or images decoded as they are asked for."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.base.cpu import available_cores
from trainyard.base.errors import DataError, ItemError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.cache import build_once, cache_folder, load_array
from trainyard.data.image_cache import DecodedImages
from trainyard.data.records import Records
from trainyard.data.threads import local_world_size
from trainyard.preprocess.base import Encoded, Inputs, Item, Preprocessor
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor

log = logging.getLogger(__name__)

OVERLAPPED_BYTES = 2 << 20
"""A batch of more cached pixels is copied in a thread of its own, beside the model's work."""
TOKENS_FORMAT = 1
"""Raised when the files of cached tokens change their meaning."""
CHUNK = 20_000
"""Texts that are encoded at a time: what the tokenizer returns takes far more memory than the ids."""


@dataclass(frozen=True)
class EncodedSplit:
    """A split that gives batches of model inputs.

    Attributes:
        labels: ``[n] int64``.
        preprocessor: Joins what ``read`` gives.
        read: Gives examples, by their places in the split, as the preprocessor encodes them.
        lengths: ``[n] int64``, tokens of each text; ``None`` for images.
        image_bytes: Of each image whose pixels are cached; 0 of texts, ``None`` where images are decoded each time.
    """

    labels: NDArray[np.int64]
    preprocessor: Preprocessor
    read: Callable[[NDArray[np.int64]], Sequence[Encoded]]
    lengths: NDArray[np.int64] | None = None
    image_bytes: int | None = 0

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Model inputs of these examples.

        Raises:
            DataError: an image that could be read when the data was loaded can't any more.
        """
        return self.preprocessor.collate(self.read(np.asarray(indices)))

    def select(self, examples: NDArray[np.int64]) -> EncodedSplit:
        """These examples, in this order."""
        lengths = None if self.lengths is None else self.lengths[examples]
        return replace(self, labels=self.labels[examples], lengths=lengths, read=lambda rows: self.read(examples[rows]))


def encode_split(
    records: Records, preprocessor: Preprocessor, data: ImagesConfig | TextsConfig, training: bool
) -> EncodedSplit:
    """Makes a split ready for batches.

    Args:
        training: Gives images with the margin for random crops, ``[3, resize, resize]``; otherwise their centre,
            ``[3, size, size]``.
    """
    # By class and not asked of the preprocessor: caches of tokens and of pixels are the data's, in a layer above.
    if isinstance(preprocessor, TextPreprocessor):
        return _cached_texts(records, preprocessor, data.cache)
    assert isinstance(preprocessor, ImagePreprocessor), "a preprocessor is of images or of texts"
    if records.decoded is not None and records.decoded.preprocessor == preprocessor:
        return _cached_images(records.labels, records.decoded, training)
    encode = preprocessor.encode_wide if training else preprocessor.encode

    def read(indices: NDArray[np.int64]) -> list[Encoded]:
        return [_decode(records, int(i), encode) for i in indices]

    return EncodedSplit(records.labels, preprocessor, read, image_bytes=None)


def loader_workers(split: EncodedSplit, data: ImagesConfig | TextsConfig) -> int:
    """Threads that are worth having to prepare this split's batches; 0 where a batch is ready in no time."""
    if isinstance(data, ImagesConfig) and data.workers is not None:
        return data.workers
    if split.image_bytes is None:
        return max(1, available_cores() // local_world_size())
    return int(data.batch_size * split.image_bytes > OVERLAPPED_BYTES)


def _cached_images(labels: NDArray[np.int64], images: DecodedImages, training: bool) -> EncodedSplit:
    preprocessor, pixels, rows = images.preprocessor, images.pixels(), images.rows
    margin = 0 if training else (preprocessor.resize - preprocessor.size) // 2
    side = preprocessor.resize if training else preprocessor.size
    crop = slice(margin, margin + side)
    # At once, since numpy gathers many small images faster than we can ask for each.
    return EncodedSplit(labels, preprocessor, lambda i: list(pixels[rows[i], crop, crop]), image_bytes=side * side * 3)


def _decode(records: Records, index: int, encode: Callable[[Item], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    try:
        return encode(records.items[index])
    except ItemError as error:
        raise DataError(f"{records.sources[index]} changed since training started: {error}") from error


def _cached_texts(records: Records, preprocessor: TextPreprocessor, cache: str) -> EncodedSplit:
    """Encodes texts, or reads what an earlier run or another process encoded of the same contents.

    The cache holds the texts end to end: ``tokens`` are ``[1 or 2, total] int32`` (ids, and segments below if the model
    takes them), ``offsets`` are ``[texts + 1] int64``, where each text starts.
    """
    settings = [TOKENS_FORMAT, preprocessor.tokenizer.to_str(), preprocessor.max_length, preprocessor.segments]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for text in records.items:
        # JSON keeps apart what joining would mix: ("a b", "c") and ("a", "b c").
        digest.update(json.dumps(text).encode())
    folder = cache_folder(cache, "tokens", digest.hexdigest()[:32])
    build_once(folder, lambda temporary: _tokenise(records.items, preprocessor, temporary))
    tokens, offsets = load_array(folder / "tokens.npy"), np.load(folder / "offsets.npy")

    def read(indices: NDArray[np.int64]) -> list[Encoded]:
        return [tokens[:, offsets[i] : offsets[i + 1]] for i in indices]

    return EncodedSplit(records.labels, preprocessor, read, np.diff(offsets))


def _tokenise(texts: Sequence[Item], preprocessor: TextPreprocessor, folder: Path) -> None:
    parts: list[NDArray[np.int32]] = []
    lengths = [0]
    for start in range(0, len(texts), CHUNK):
        rows = preprocessor.encode_many(texts[start : start + CHUNK])
        lengths += [row.shape[1] for row in rows]
        parts.append(np.concatenate(rows, axis=1))
        if len(texts) > CHUNK:
            log.info("tokenised %s of %s texts", f"{start + len(rows):,}", f"{len(texts):,}")
    np.save(folder / "tokens.npy", np.concatenate(parts, axis=1))
    np.save(folder / "offsets.npy", np.cumsum(lengths, dtype=np.int64))
