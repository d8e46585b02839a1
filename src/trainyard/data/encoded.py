"""Records ready to be batched: pixels and token ids from their caches, or images decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainyard.base.cpu import available_cores
from trainyard.base.errors import DataError, ItemError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.image_cache import DecodedImages
from trainyard.data.records import Records
from trainyard.data.threads import local_world_size
from trainyard.data.token_cache import TokenCache, encode_texts
from trainyard.preprocess.base import Inputs, Item, Preprocessor
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor

OVERLAPPED_BYTES = 2 << 20
"""A batch of more cached pixels is copied in a thread of its own, beside the model's work."""


class EncodedSplit(Protocol):
    """A split that gives batches of model inputs.

    Attributes:
        labels: ``[n] int64``.
        lengths: ``[n] int64``, tokens of each text; ``None`` for images.
    """

    labels: NDArray[np.int64]
    lengths: NDArray[np.int64] | None

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Model inputs of these examples."""
        ...


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
        return EncodedTexts(records, preprocessor, data.cache)
    assert isinstance(preprocessor, ImagePreprocessor), "a preprocessor is of images or of texts"
    if records.decoded is not None and records.decoded.preprocessor == preprocessor:
        return CachedImages(records.labels, records.decoded, training)
    return StreamedImages(records, preprocessor, training)


def loader_workers(split: EncodedSplit, data: ImagesConfig | TextsConfig) -> int:
    """Threads that are worth having to prepare this split's batches; 0 where a batch is ready in no time."""
    if isinstance(data, ImagesConfig) and data.workers is not None:
        return data.workers
    if isinstance(split, StreamedImages):
        return max(1, available_cores() // local_world_size())
    if isinstance(split, CachedImages) and data.batch_size * split.image_bytes > OVERLAPPED_BYTES:
        return 1
    return 0


class EncodedTexts:
    """Texts whose token ids are cached."""

    def __init__(self, records: Records, preprocessor: TextPreprocessor, cache: str) -> None:
        self.labels = records.labels
        self._preprocessor = preprocessor
        self._tokens: TokenCache = encode_texts(records.items, preprocessor, cache)
        self.lengths: NDArray[np.int64] | None = np.diff(self._tokens.offsets)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Token ids padded to the longest of these texts."""
        return self._preprocessor.collate([self._tokens[i] for i in indices])


class CachedImages:
    """Images whose pixels are in memory or in a memory map."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, labels: NDArray[np.int64], images: DecodedImages, training: bool) -> None:
        self.labels = labels
        self._images = images
        preprocessor = images.preprocessor
        margin = 0 if training else (preprocessor.resize - preprocessor.size) // 2
        side = preprocessor.resize if training else preprocessor.size
        self._crop = slice(margin, margin + side)
        self.image_bytes = side * side * 3

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Pixels of these images."""
        pixels = self._images.file.pixels[self._images.rows[indices], self._crop, self._crop]
        return self._images.preprocessor.collate(list(pixels))


class StreamedImages:
    """Images that are decoded each time they are asked for."""

    lengths: NDArray[np.int64] | None = None

    def __init__(self, records: Records, preprocessor: ImagePreprocessor, training: bool) -> None:
        self.labels = records.labels
        self._records = records
        self._preprocessor = preprocessor
        self._encode = preprocessor.encode_wide if training else preprocessor.encode

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Pixels of these images.

        Raises:
            DataError: an image that could be read when the data was loaded can't any more.
        """
        return self._preprocessor.collate([self._decode(int(i)) for i in indices])

    def _decode(self, index: int) -> NDArray[np.uint8]:
        item: Item = self._records.items[index]
        try:
            return self._encode(item)
        except ItemError as error:
            raise DataError(f"{self._records.sources[index]} changed since training started: {error}") from error
