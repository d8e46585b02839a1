"""What the bundle carries of the data: a few examples of every class, small enough to be carried."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainyard.data.records import Records
from trainyard.preprocess.base import Item
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.training.samples import DRIFT_RECORDS, choose, drift_reference


def records(*counts: int, items: list[Item] | None = None) -> Records:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Records(items if items is not None else ["text"] * len(labels), labels, [""] * len(labels))


@pytest.mark.parametrize("count", [3, 10, 50])
def test_every_class_is_chosen_however_rare(count: int) -> None:
    split = records(5000, 100, 1)

    chosen = choose(split, count, seed=0)

    assert set(split.labels[chosen].tolist()) == {0, 1, 2}
    assert len(set(chosen.tolist())) == count


def test_the_choice_follows_from_the_seed_and_is_spread() -> None:
    split = records(1000, 1000)

    first, again, other = (choose(split, 40, seed).tolist() for seed in (0, 0, 1))

    assert first == again
    assert first != other
    assert np.bincount(split.labels[first]).tolist() == [20, 20]
    assert max(first) - min(first) > 1000, "not the first ones"


def test_small_splits_are_chosen_whole() -> None:
    assert sorted(choose(records(2, 1), 128, seed=0).tolist()) == [0, 1, 2]


def test_the_drift_reference_is_of_all_answers_and_of_some_inputs() -> None:
    images = [_png(value) for value in range(0, 250, 50)] * 500
    split = records(2000, 500, items=images)
    probabilities = np.tile(np.array([[0.9, 0.1], [0.3, 0.7]], np.float32), (1250, 1))

    reference = drift_reference(split, probabilities, ImagePreprocessor(8, 8), seed=0)

    assert (reference.examples, reference.labels) == (2500, [1250, 1250])
    assert reference.mean_confidence == pytest.approx(0.8)
    brightness = reference.measures["brightness"]
    assert sum(brightness.counts) == DRIFT_RECORDS
    assert brightness.psi([value / 255 for value in range(0, 250, 50)] * 50) < 0.05
    assert reference == drift_reference(split, probabilities, ImagePreprocessor(8, 8), seed=0)


def _png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return file.getvalue()
