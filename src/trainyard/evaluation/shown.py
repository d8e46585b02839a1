"""Which test examples a report shows, and what it knows of all: the length of a text, the brightness of an image."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainyard.base.cpu import available_cores
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.encoded import EncodedSplit, encode_split
from trainyard.data.records import Records
from trainyard.data.threads import ordered_map
from trainyard.evaluation.predictions import Predictions, example_ids
from trainyard.preprocess.base import Item, Preprocessor
from trainyard.preprocess.text import without_surrogates

SUREST = 24
"""Wrong answers that are shown for being the surest."""
PER_CELL = 12
"""Most examples of a cell of the confusion matrix."""
MAX_SHOWN = 600
MAX_BYTES = 3_000_000
"""Of all pictures: text that holds them is a third longer, and the report is to stay below 5 MB."""
MAX_DECODED = 300
"""Images that are decoded again where their pixels aren't cached: a large photograph takes a third of a second."""
CHUNK = 256
SIDE = 96
"""Of a picture, in pixels."""
MAX_CHARACTERS = 400


def describe_answers(
    records: Records,
    preprocessor: Preprocessor,
    data: ImagesConfig | TextsConfig,
    classes: Sequence[str],
    probabilities: NDArray[np.float32],
    samples: bool,
) -> Predictions:
    """Puts answers together with what a report tells of their examples.

    Args:
        records: The examples.
        preprocessor: Pictures show what the model sees.
        data: Where pixels are cached.
        classes: Names, in the order of the probabilities.
        probabilities: ``[examples, classes] float32``.
        samples: Whether the examples themselves may be shown.
    """
    images = isinstance(data, ImagesConfig)
    split = encode_split(records, preprocessor, data, training=False) if images else None
    chosen = _chosen(records.labels, probabilities) if samples else np.empty(0, np.int64)
    shown: list[str | bytes | None] = [None] * len(records)
    if split is None:
        traits = np.array([len(_text(item)) for item in records.items], np.float32)
        for i in chosen.tolist():
            shown[i] = _beginning(_text(records.items[i]))
    else:
        traits = _brightness(split)
        pictures = zip(chosen.tolist(), map(_picture, read_pixels(split, chosen[: _most(split)])), strict=False)
        room = MAX_BYTES
        for i, picture in pictures:
            if (room := room - len(picture)) < 0:
                break
            shown[i] = picture
    return Predictions(
        classes=tuple(classes),
        ids=example_ids(records),
        sources=list(records.sources),
        labels=records.labels,
        probabilities=probabilities,
        trait="brightness" if images else "characters",
        traits=traits,
        shown=shown,
    )


def _chosen(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices, the most wanted first: the surest mistakes, then some of each cell; of right answers the least sure."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == labels
    order = np.lexsort((np.where(right, confidence, -confidence), right)).tolist()
    seen: Counter[tuple[int, int]] = Counter()
    wanted = []
    for place, i in enumerate(order):
        cell = int(labels[i]), int(predicted[i])
        if seen[cell] < PER_CELL or (place < SUREST and not right[i]):
            wanted.append((right[i] or place >= SUREST, seen[cell], place, i))
        seen[cell] += 1
    return np.array([i for *_, i in sorted(wanted)[:MAX_SHOWN]], np.int64)


def _brightness(split: EncodedSplit) -> NDArray[np.float32]:
    """Mean of each image's pixels, from 0 to 1; of uncached ones, NaN but for a sample."""
    traits = np.full(len(split), np.nan, np.float32)
    rows = np.random.default_rng(0).permutation(len(split))[: _most(split)]
    for i, pixels in zip(rows.tolist(), read_pixels(split, rows), strict=True):
        traits[i] = pixels.mean() / 255
    return traits


def _most(split: EncodedSplit) -> int:
    return MAX_DECODED if split.image_bytes is None else len(split)


def read_pixels(split: EncodedSplit, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """What the model sees of these images, ``[height, width, 3] uint8`` each."""
    size = 1 if split.image_bytes is None else CHUNK
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    for chunk in ordered_map(split.read, chunks, available_cores()):
        yield from cast("Sequence[NDArray[np.uint8]]", chunk)


def _picture(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    # A small one is a drawing as often as a photograph, of which JPEG would leave smears.
    image.save(file, "PNG") if max(pixels.shape) <= SIDE // 2 else image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _text(item: Item) -> str:
    return without_surrogates(" | ".join(item) if isinstance(item, tuple) else str(item))


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
