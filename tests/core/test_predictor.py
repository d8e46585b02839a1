"""The predictor: lists of raw items in, labels with probabilities out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainyard.core.bundle import Bundle
from trainyard.core.eager import EagerRuntime
from trainyard.core.predictor import Prediction, Predictor
from trainyard.core.preprocess import Inputs, Item
from trainyard.errors import ItemError


@pytest.fixture(scope="module")
def bundle(digits_run: Path) -> Bundle:
    return Bundle.open(digits_run)


@pytest.fixture(scope="module")
def items(bundle: Bundle) -> list[Item]:
    return sorted((bundle.path / "samples" / "golden").iterdir())


def predictions(predictor: Predictor, items: list[Item], top_k: int = 10) -> list[Prediction]:
    answers = predictor.predict(items, top_k)
    assert all(isinstance(answer, Prediction) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Prediction)]


@pytest.mark.parametrize(("top_k", "shown"), [(1, 1), (3, 3), (99, 10)])
def test_top_k_is_how_many_classes_are_told_best_first(
    bundle: Bundle, items: list[Item], top_k: int, shown: int
) -> None:
    for answer in predictions(Predictor(bundle), items, top_k):
        assert len(answer.top) == shown
        assert answer.top == sorted(answer.top, key=lambda pair: -pair[1])
        assert answer.top[0] == (answer.label, answer.probability)
        if shown == 10:
            assert sum(probability for _, probability in answer.top) == pytest.approx(1)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_batch_size_splits_the_work_and_changes_no_answer(
    bundle: Bundle, items: list[Item], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predictions(Predictor(bundle, batch_size=32), items)
    sizes = []
    logits = EagerRuntime.logits

    def record(self: EagerRuntime, inputs: Inputs) -> object:
        sizes.append(len(inputs["images"]))
        return logits(self, inputs)

    monkeypatch.setattr(EagerRuntime, "logits", record)

    answers = predictions(Predictor(bundle, batch_size=batch_size), items)

    assert max(sizes) == batch_size
    assert sum(sizes) == len(items) == 16
    for one, other in zip(answers, expected, strict=True):
        assert one.label == other.label
        assert dict(one.top) == pytest.approx(dict(other.top), abs=1e-6)


def test_a_run_folder_does_as_well_as_an_open_bundle(digits_run: Path, bundle: Bundle, items: list[Item]) -> None:
    assert predictions(Predictor(digits_run), items) == predictions(Predictor(bundle), items)


def test_auto_takes_eager_where_there_is_nothing_else(bundle: Bundle, items: list[Item]) -> None:
    assert predictions(Predictor(bundle, "auto"), items) == predictions(Predictor(bundle, "eager"), items)


def test_the_device_is_where_the_model_runs(bundle: Bundle) -> None:
    runtime = Predictor(bundle, device="cpu")._runtime
    elsewhere = Predictor(bundle, device="meta")._runtime

    assert {parameter.device.type for parameter in runtime.classifier.parameters()} == {"cpu"}
    assert {parameter.device.type for parameter in elsewhere.classifier.parameters()} == {"meta"}


def test_probabilities_are_those_of_the_answers(bundle: Bundle, items: list[Item]) -> None:
    predictor = Predictor(bundle, batch_size=5)

    probabilities = predictor.probabilities(items)

    assert probabilities.shape == (16, 10)
    assert probabilities.dtype == np.float32
    best = [predictor.bundle.labels[i] for i in probabilities.argmax(axis=1)]
    assert best == [answer.label for answer in predictions(predictor, items)]


def test_no_items_no_answers(bundle: Bundle) -> None:
    assert Predictor(bundle).predict([]) == []
    assert Predictor(bundle).probabilities([]).shape == (0, 10)


def test_bad_items_fail_alone_or_where_none_may_fail(bundle: Bundle, items: list[Item]) -> None:
    predictor = Predictor(bundle, batch_size=2)

    answers = predictor.predict([b"", b"", items[0], b"", items[1]])

    assert [isinstance(answer, ItemError) for answer in answers] == [True, True, False, True, False]
    for answer, other in zip((answers[2], answers[4]), predictions(predictor, items[:2], 3), strict=True):
        assert isinstance(answer, Prediction)
        assert dict(answer.top) == pytest.approx(dict(other.top), abs=1e-6)
    with pytest.raises(ItemError):
        predictor.probabilities([items[0], b""])
