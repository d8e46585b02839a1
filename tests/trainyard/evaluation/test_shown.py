"""A report shows the surest mistakes and some of each cell, in bounded room, and knows how long every text is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.records import Records
from trainyard.evaluation import shown
from trainyard.evaluation.predictions import Predictions
from trainyard.evaluation.shown import describe_answers
from trainyard.preprocess.base import Item
from trainyard.preprocess.image import ImagePreprocessor

TEXTS = TextsConfig(kind="texts", path="unused")


def answered(
    items: list[Item], sure: NDArray[np.float32], labels: list[int], data: TextsConfig | ImagesConfig = TEXTS,
    samples: bool = True,
) -> Predictions:  # fmt: skip
    """Of two classes, of which the second is this sure."""
    digests = [bytes([i % 256, i // 256]) * 16 for i in range(len(items))]
    records = Records(items, np.array(labels), [f"t:{i}" for i in range(len(items))], None, digests)
    probabilities = np.stack([1 - sure, sure], axis=1).astype(np.float32)
    return describe_answers(records, ImagePreprocessor(200, 200), data, ("a", "b"), probabilities, samples)


def test_the_surest_mistakes_come_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MAX_SHOWN", shown.SUREST + 4)
    sure = np.linspace(0.51, 0.99, 100)
    made = answered([f"text {i}" for i in range(100)], sure, [0, 1] * 50)
    found = [i for i, one in enumerate(made.shown) if one is not None]
    assert set(range(100 - 2 * shown.SUREST, 100, 2)) <= set(found)
    assert [i for i in found if i % 2] == [1, 3, 5, 7], "of right answers the least sure"


def test_a_long_text_is_cut_and_its_length_known() -> None:
    made = answered(["x" * 1000, ("one", "\udcff")], np.array([0.9, 0.2]), [0, 0])
    assert made.traits.tolist() == [1000, 7]
    assert len(str(made.shown[0])) == shown.MAX_CHARACTERS
    assert str(made.shown[1]).startswith("one | ")


def test_without_samples_nothing_is_shown() -> None:
    made = answered(["secret"], np.array([0.9]), [0], samples=False)
    assert (made.shown, made.traits.tolist()) == ([None], [6])


def test_pictures_have_bounded_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    items: list[Item] = []
    for name, pixels in (("white", np.full_like(noise, 255)), ("noise", noise), ("black", np.zeros_like(noise))):
        items.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(str(items[-1]))
    data = ImagesConfig(kind="images", path="unused", image_size=200)
    made = answered(items, np.array([0.9, 0.8, 0.7]), [0, 0, 0], data)
    assert made.traits.tolist() == pytest.approx([1, 0.5, 0], abs=0.01)
    pictures = [one for one in made.shown if isinstance(one, bytes)]
    assert [Image.open(io.BytesIO(one)).size for one in pictures] == [(shown.SIDE, shown.SIDE)] * 3
    monkeypatch.setattr(shown, "MAX_BYTES", len(pictures[0]) + 10)
    assert [one is not None for one in answered(items, np.array([0.9, 0.8, 0.7]), [0, 0, 0], data).shown] == [
        True,
        False,
        False,
    ]
