"""An answer is the item's own: a server puts together whatever arrives at once, and pads it to the longest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainyard.base.errors import ItemError
from trainyard.data.records import Dataset
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Item

ROUNDING = 1e-5
"""A probability may move as much where a sum is added up in another order."""


@pytest.fixture
def predictor(trained: Path) -> Predictor:
    return Predictor(trained, "eager", device="cpu")


@pytest.fixture
def items(dataset: Dataset) -> list[Item]:
    return list(dataset.splits["test"].items[:40])


@pytest.fixture
def alone(predictor: Predictor, items: list[Item]) -> np.ndarray:
    """The answers to items one by one."""
    return np.concatenate([predictor.probabilities([item]) for item in items])


def test_in_a_batch_it_is_the_same(predictor: Predictor, items: list[Item], alone: np.ndarray) -> None:
    np.testing.assert_allclose(predictor.probabilities(items), alone, atol=ROUNDING)
    np.testing.assert_allclose(predictor.probabilities(items[::-1])[::-1], alone, atol=ROUNDING)


def test_padded_it_is_the_same(predictor: Predictor, items: list[Item], alone: np.ndarray) -> None:
    if not isinstance(items[0], str):
        pytest.skip("images aren't padded")
    longest = " ".join(str(item) for item in items)
    for item, expected in zip(items, alone, strict=True):
        np.testing.assert_allclose(predictor.probabilities([item, longest])[0], expected, atol=ROUNDING)


def test_beside_one_that_cannot_be_read_it_is_the_same(
    predictor: Predictor, items: list[Item], alone: np.ndarray
) -> None:
    bad: Item = " " if isinstance(items[0], str) else b"no image"
    first, broken, last = predictor.score([items[0], bad, items[1]])

    assert isinstance(broken, ItemError)
    np.testing.assert_allclose([first, last], alone[:2], atol=ROUNDING)


def test_it_is_a_distribution_over_the_classes(predictor: Predictor, items: list[Item], dataset: Dataset) -> None:
    found = predictor.probabilities(items)

    assert tuple(predictor.bundle.labels) == dataset.classes
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=ROUNDING)
    assert len(set(found.argmax(axis=1).tolist())) > 1, "it answers always the same"
