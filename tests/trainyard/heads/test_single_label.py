"""Scores against scikit-learn, and the edges where a score is a matter of definition."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support
from torch import Tensor

from trainyard.base.errors import DataError
from trainyard.heads.scores import Scores
from trainyard.heads.single_label import SingleLabel

HEAD = SingleLabel()
CLASSES = ("cat", "dog", "fox", "owl")


def logits_and_labels(seed: int, examples: int, classes: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(examples, classes, generator=generator)
    return logits, torch.randint(classes, (examples,), generator=generator)


def one_hot(predicted: list[int], classes: int = 4) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def calibration_error_by_hand(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Guo et al. 2017, equation 3, with its half-open bins ((m - 1)/M, m/M]."""
    probabilities = logits.double().softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    error = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@given(seed=st.integers(0, 2**31), examples=st.integers(1, 60), classes=st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_learn(seed: int, examples: int, classes: int) -> None:
    logits, labels = logits_and_labels(seed, examples, classes)
    names = [f"class {i}" for i in range(classes)]
    predicted, true, every = logits.argmax(1).numpy(), labels.numpy(), range(classes)

    scores = HEAD.scores(logits, labels, names)

    assert scores.accuracy == accuracy_score(true, predicted)
    assert scores.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0), abs=1e-12)
    assert scores.confusion == confusion_matrix(true, predicted, labels=every).tolist()
    assert scores.loss == pytest.approx(log_loss(true, logits.double().softmax(1).numpy(), labels=every), abs=1e-9)
    reference = zip(*precision_recall_fscore_support(true, predicted, labels=every, zero_division=0), strict=True)
    for ours, theirs in zip(scores.per_class.values(), reference, strict=True):
        assert (ours.precision, ours.recall, ours.f1, ours.support) == pytest.approx(theirs, abs=1e-12)


@given(seed=st.integers(0, 2**31), examples=st.integers(1, 80), spread=st.sampled_from([0.0, 0.5, 5.0, 200.0]))
@settings(max_examples=40, deadline=None)
def test_calibration_error_is_that_of_the_paper(seed: int, examples: int, spread: float) -> None:
    logits, labels = logits_and_labels(seed, examples, classes=4, spread=spread)
    assert HEAD.scores(logits, labels, CLASSES).ece == pytest.approx(
        calibration_error_by_hand(logits, labels), abs=1e-9
    )


def test_certainty_counts_to_the_last_bin() -> None:
    # Confidence 1 and wrong, 0.95 and right: one bin in the paper, where the two errors cancel in part.
    certain, nearly = [1000.0, 0, 0, 0], [math.log(57), 0, 0, 0]
    scores = HEAD.scores(torch.tensor([certain, nearly]), torch.tensor([1, 0]), CLASSES)
    assert scores.ece == pytest.approx((1 + 0.95) / 2 - 0.5)


def test_agrees_with_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_f1_score

    logits, labels = logits_and_labels(seed=3, examples=300, classes=4)
    scores = HEAD.scores(logits, labels, CLASSES)
    assert scores.macro_f1 == pytest.approx(float(multiclass_f1_score(logits, labels, 4)), abs=1e-6)
    assert scores.confusion == multiclass_confusion_matrix(logits, labels, 4).tolist()


def test_class_without_examples_does_not_lower_macro_f1() -> None:
    scores = HEAD.scores(one_hot([0, 1, 1]), torch.tensor([0, 1, 1]), CLASSES)
    assert scores.macro_f1 == 1.0
    assert scores.per_class["owl"].f1 == 0.0
    assert scores.per_class["owl"].support == 0


def test_class_that_is_only_predicted_lowers_macro_f1() -> None:
    scores = HEAD.scores(one_hot([0, 3]), torch.tensor([0, 0]), CLASSES)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    scores = HEAD.scores(one_hot([1, 1, 0]), torch.tensor([0, 0, 0]), CLASSES)
    assert scores.confusion[0] == [1, 2, 0, 0]
    assert scores.correct == 1


def test_same_bits_with_any_number_of_threads() -> None:
    logits, labels = logits_and_labels(seed=1, examples=70_000, classes=10)
    names = [str(i) for i in range(10)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = HEAD.scores(logits, labels, names)
        torch.set_num_threads(4)
        assert HEAD.scores(logits, labels, names) == alone
    finally:
        torch.set_num_threads(threads)


def test_many_classes_in_deterministic_mode_need_little_memory() -> None:
    logits, labels = logits_and_labels(seed=1, examples=2_000, classes=1_000)
    torch.use_deterministic_algorithms(True)
    try:
        scores = HEAD.scores(logits, labels, [str(i) for i in range(1_000)])
    finally:
        torch.use_deterministic_algorithms(False)
    assert np.sum(scores.confusion) == 2_000


def test_survive_json_unchanged() -> None:
    logits, labels = logits_and_labels(seed=2, examples=50, classes=4)
    scores = HEAD.scores(logits, labels, CLASSES)
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores
    assert scores.summary() == {key: getattr(scores, key) for key in ("accuracy", "macro_f1", "loss", "ece")}


def test_extreme_logits_have_a_finite_loss() -> None:
    scores = HEAD.scores(torch.tensor([[3e38, -3e38, 0, 0]]), torch.tensor([1]), CLASSES)
    assert scores.loss == pytest.approx(6e38, rel=1e-6)


def test_no_examples_is_an_error() -> None:
    with pytest.raises(DataError, match="the split is empty"):
        HEAD.scores(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CLASSES)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(broken: float) -> None:
    logits, labels = logits_and_labels(seed=2, examples=5, classes=4)
    logits[3, 1] = broken
    with pytest.raises(DataError, match=r"not finite for 1 of 5 examples.*lower optim\.lr"):
        HEAD.scores(logits, labels, CLASSES)
