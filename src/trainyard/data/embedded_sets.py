"""The data that come with the project: real handwritten digits, and support tickets."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import merge, read_examples
from trainyard.data.records import Found, Rows, Split
from trainyard.preprocess.base import Item

PREFIX = "embedded"


def read_embedded(name: str, data: ImagesConfig | TextsConfig) -> Found:
    """Reads an embedded dataset.

    Raises:
        UsageError: there is none of this name, or it is of the other kind.
    """
    if name not in _SETS:
        raise UsageError(f"data.path={PREFIX}:{name} doesn't exist: the embedded datasets are {', '.join(names())}")
    kind, read = _SETS[name]
    if kind != data.kind:
        raise UsageError(f"data.path={PREFIX}:{name} holds {kind}: say data.kind={kind}")
    return read()


def names() -> list[str]:
    """The embedded datasets as ``data.path`` names them."""
    return [f"{PREFIX}:{name}" for name in _SETS]


def _read_digits() -> Found:
    """1,797 digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), undivided."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images: list[Item] = [_png(pixels) for pixels in np.rint(digits.images * (255 / 16)).astype(np.uint8)]
    labels = [str(label) for label in digits.target]
    return Found({"train": Rows(images, labels, [f"digits:{i}" for i in range(len(images))])})


def _read_tickets() -> Found:
    """Support tickets in four classes, written for this project; the test split apart from training."""
    folder = Path(__file__).parent / "embedded"
    config = TextsConfig(kind="texts", path=str(folder))
    parts: dict[Split, str] = {"train": "tickets_train.csv", "test": "tickets_test.csv"}
    return merge([read_examples(folder / name, name, config, split) for split, name in parts.items()])


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


_SETS: dict[str, tuple[str, Callable[[], Found]]] = {
    "digits": ("images", _read_digits),
    "tickets": ("texts", _read_tickets),
}
