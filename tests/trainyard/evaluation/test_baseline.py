"""The baseline learns what is easy, says who is better, and gets along with whatever a dataset holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.records import Records
from trainyard.evaluation import baseline
from trainyard.evaluation.baseline import Baseline, measure_baseline
from trainyard.preprocess.base import Item
from trainyard.preprocess.image import ImagePreprocessor

TEXTS = TextsConfig(kind="texts", path="unused")
PREPROCESSOR = ImagePreprocessor(16, 16)


def records(items: list[Item], labels: list[int]) -> Records:
    return Records(items, np.array(labels), [f"t:{i}" for i in range(len(items))])


def of_texts(items: list[Item], labels: list[int], predicted: list[int]) -> Baseline:
    part = records(items, labels)
    return measure_baseline(part, part, PREPROCESSOR, TEXTS, np.array(predicted))


def test_words_that_tell_the_class_are_learnt() -> None:
    found = of_texts([f"{word} {n}" for n in range(20) for word in ("tea", "milk")], [0, 1] * 20, [0] * 40)
    assert (found.accuracy, found.macro_f1, found.majority) == (1, 1, 0.5)
    assert (found.gain, found.verdict) == (-0.5, "worse than")
    assert Baseline.model_validate_json(found.model_dump_json()) == found


def test_it_says_who_is_better_whoever_that_is() -> None:
    items: list[Item] = ["same"] * 40
    labels = [0] * 30 + [1] * 10
    assert of_texts(items, labels, labels).verdict == "better than"
    assert of_texts(items, labels, [0] * 40).verdict == "not distinguishable from"
    assert of_texts(items, labels, [1] * 40).verdict == "worse than"


@pytest.mark.parametrize(
    "items", [["?", "!", "。"], [("a", "b"), ("שלום", "x"), ("c", "d")], ["\udcff", "你好", "a\0b"]]
)
def test_any_text_will_do(items: list[Item]) -> None:
    assert of_texts(items, [0, 1, 1], [0, 1, 1]).accuracy > 0


def test_one_class_to_learn_from_is_what_is_answered() -> None:
    found = of_texts(["a", "b"], [3, 3], [3, 3])
    assert (found.name, found.accuracy) == ("always the most frequent class", 1)


def test_pictures_are_told_apart_by_their_grey(tmp_path: Path) -> None:
    files: list[Item] = []
    for n in range(20):
        files.append(tmp_path / f"{n}.png")
        Image.new("RGB", (30, 20), (40 + n, 0, 0) if n % 2 else (200, 200 - n, 220)).save(str(files[-1]))
    data = ImagesConfig(kind="images", path="unused", image_size=16)
    part = records(files, [n % 2 for n in range(20)])
    found = measure_baseline(part, part, PREPROCESSOR, data, np.zeros(20, np.int64))
    assert (found.accuracy, found.train_examples, found.gain) == (1, 20, -0.5)


def test_of_much_a_sample_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "MAX_EXAMPLES", 10)
    found = of_texts([f"{word} {n}" for n in range(20) for word in ("tea", "milk")], [0, 1] * 20, [0, 1] * 20)
    assert (found.train_examples, found.test_examples, found.majority) == (10, 10, 0.5)
