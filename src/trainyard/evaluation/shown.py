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
from trainyard.preprocess.base import Preprocessor
from trainyard.preprocess.text import as_text

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
    made = Predictions(
        classes=tuple(classes),
        ids=example_ids(records),
        sources=list(records.sources),
        labels=records.labels,
        probabilities=probabilities,
        trait="brightness" if images else "characters",
        traits=np.full(len(records), np.nan, np.float32),
        shown=[None] * len(records),
    )
    chosen = np.array(_chosen(made) if samples else [], np.int64)
    if images:
        _look_at_images(made, chosen, encode_split(records, preprocessor, data, training=False))
        return made
    texts = [as_text(item) for item in records.items]
    made.traits[:] = [len(text) for text in texts]
    for i in chosen.tolist():
        made.shown[i] = texts[i] if len(texts[i]) <= MAX_CHARACTERS else texts[i][: MAX_CHARACTERS - 1] + "…"
    return made


def _chosen(made: Predictions) -> list[int]:
    """Indices, the most wanted first: the surest mistakes, then some of each cell of the confusion matrix."""
    seen: Counter[tuple[int, int]] = Counter()
    wanted = []
    pairs = list(zip(made.labels.tolist(), made.predicted.tolist(), strict=True))
    for place, i in enumerate(made.order):
        cell = pairs[i]
        is_surest = place < SUREST and cell[0] != cell[1]
        if is_surest or seen[cell] < PER_CELL:
            wanted.append((not is_surest, seen[cell], place, i))
        seen[cell] += 1
    return [i for *_, i in sorted(wanted)[:MAX_SHOWN]]


def _look_at_images(made: Predictions, chosen: NDArray[np.int64], split: EncodedSplit) -> None:
    """Adds the mean of each image's pixels, from 0 to 1, and pictures; of uncached images, of some alone."""
    most = MAX_DECODED if split.image_bytes is None else len(split)
    rows = np.random.default_rng(0).permutation(len(split))[:most]
    made.traits[rows] = [pixels.mean() / 255 for pixels in read_pixels(split, rows)]
    room = MAX_BYTES
    for i, pixels in zip(chosen.tolist(), read_pixels(split, chosen[:most]), strict=False):
        picture = _picture(pixels)
        if (room := room - len(picture)) < 0:
            break
        made.shown[i] = picture


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
