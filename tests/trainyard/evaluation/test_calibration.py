"""Temperature scaling on logits whose right temperature is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainyard.base.errors import DataError
from trainyard.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE, fit_temperature
from trainyard.heads.single_label import SingleLabel

HEAD = SingleLabel()
CLASSES = tuple("abcde")


def calibrated(seed: int, examples: int) -> tuple[Tensor, Tensor]:
    """Logits whose softmax is the true distribution of the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(examples, len(CLASSES), generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5, 4.0])
def test_recovers_the_temperature(temperature: float) -> None:
    logits, labels = calibrated(seed=0, examples=20_000)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_calibrates_over_confident_logits() -> None:
    logits, labels = calibrated(seed=1, examples=5_000)
    before = HEAD.scores(3 * logits, labels, CLASSES)
    after = HEAD.scores(3 * logits / fit_temperature(3 * logits, labels), labels, CLASSES)
    assert after.loss < 0.8 * before.loss
    assert after.ece < 0.2 * before.ece
    assert after.confusion == before.confusion


@given(seed=st.integers(0, 2**31), examples=st.integers(1, 40), scale=st.floats(0.01, 30))
@settings(max_examples=40, deadline=None)
def test_no_other_temperature_has_a_lower_loss(seed: int, examples: int, scale: float) -> None:
    logits, labels = calibrated(seed, examples)
    logits = (scale * logits).double()
    fitted = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= fitted <= MAX_TEMPERATURE
    best = HEAD.scores(logits / fitted, labels, CLASSES).loss
    for other in (MIN_TEMPERATURE, 0.9 * fitted, 1.0, 1.1 * fitted, MAX_TEMPERATURE):
        if MIN_TEMPERATURE <= other <= MAX_TEMPERATURE:
            assert best <= HEAD.scores(logits / other, labels, CLASSES).loss + 1e-9


def test_flawless_split_stops_at_the_lower_bound() -> None:
    labels = torch.arange(5)
    assert fit_temperature(10 * torch.eye(5), labels) == MIN_TEMPERATURE


def test_split_with_errors_only_stops_at_the_upper_bound() -> None:
    labels = torch.arange(5)
    assert fit_temperature(-100 * torch.eye(5), labels) == MAX_TEMPERATURE


def test_logits_that_say_nothing_keep_their_temperature() -> None:
    assert fit_temperature(torch.full((6, 5), 0.1), torch.tensor([0, 1, 2, 3, 4, 0])) == 1.0


def test_same_temperature_with_any_number_of_threads() -> None:
    logits, labels = calibrated(seed=2, examples=40_000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fit_temperature(logits, labels)
        torch.set_num_threads(4)
        assert fit_temperature(logits, labels) == alone
    finally:
        torch.set_num_threads(threads)


def test_no_examples_is_an_error() -> None:
    with pytest.raises(DataError, match=r"raise data\.val_fraction"):
        fit_temperature(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))


def test_logits_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(DataError, match="not finite"):
        fit_temperature(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))
