"""The bound from which on answers are certain: it holds for examples that it has never seen, and isn't timid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from toy.train import Config, train

from trainyard.artifacts.bundle import Bundle, BundleFacts
from trainyard.artifacts.run import METRICS
from trainyard.base.errors import UsageError
from trainyard.config.experiment import EvaluationConfig
from trainyard.evaluation.threshold import Answers, certainty, check_enough, choose_threshold
from trainyard.heads.base import Prediction, answer_row
from trainyard.inference.predictor import Predictor


def drawn(random: np.random.Generator, count: int) -> Answers:
    """Answers that are right as often as their probabilities say: 88 % of all."""
    confidence = 1 - 0.7 * random.beta(0.35, 2, count)
    return confidence.astype(np.float32), random.random(count) < confidence


@pytest.mark.parametrize(("examples", "target"), [(180, 0.95), (500, 0.9), (2000, 0.98)])
def test_the_wanted_accuracy_is_missed_on_new_examples_in_one_of_twenty_cases_at_most(
    examples: int, target: float
) -> None:
    random = np.random.default_rng(0)
    new, right = drawn(random, 100_000)
    missed = plainly_missed = 0
    for _ in range(200):
        val = drawn(random, examples)
        threshold = choose_threshold(*val, target)
        missed += threshold is not None and right[new >= threshold].mean() < target
        plainly_missed += right[new >= lowest(*val, target)].mean() < target
    assert missed <= 0.05 * 200
    assert plainly_missed > 0.4 * 200, "a bound that needn't be tested would show nothing here"


def lowest(confidence: NDArray[np.float32], right: NDArray[np.bool_], target: float) -> float:
    """The threshold that just reaches the target on these examples."""
    order = np.argsort(-confidence)
    reached = np.flatnonzero(right[order].cumsum() >= target * np.arange(1, len(order) + 1))
    return float(confidence[order][reached[-1]])


def test_nearly_all_that_could_be_covered_is() -> None:
    confidence, right = drawn(np.random.default_rng(1), 20_000)
    threshold = choose_threshold(confidence, right, 0.95)
    assert threshold is not None
    covered, possible = confidence >= threshold, confidence >= lowest(confidence, right, 0.95)
    assert right[covered].mean() >= 0.95
    assert covered.mean() > 0.9 * possible.mean()


@pytest.mark.parametrize("wrong", [0, 1])
def test_so_few_examples_need_to_be_right_every_one(wrong: int) -> None:
    """0.98 to the power of 149 is 0.0493, and to that of 148 is 0.0503."""
    right = np.arange(149) >= wrong
    confidence = np.linspace(1, 0.9, 149, dtype=np.float32)
    assert choose_threshold(confidence, right, 0.98) == (None if wrong else confidence[-1])
    assert choose_threshold(confidence[1:], np.ones(148, bool), 0.98) is None


def test_equal_probabilities_are_certain_together() -> None:
    """As those are that round to 1: the right ones among them can't be told from the others."""
    confidence, right = np.ones(400, np.float32), np.arange(400) < 300
    assert choose_threshold(confidence, right, 0.98) is None
    assert choose_threshold(confidence, np.ones(400, bool), 0.98) == 1.0


def test_a_few_sure_mistakes_of_many_examples_stop_nothing() -> None:
    """Wrong labels are among the surest answers of every large set."""
    confidence = np.linspace(1, 0.5, 10_000, dtype=np.float32)
    right = (np.arange(10_000) % 300 != 5) & (np.arange(10_000) < 6_000)
    threshold = choose_threshold(confidence, right, 0.98)
    assert threshold is not None
    assert 5_500 < (confidence >= threshold).sum() < 6_200


def test_coverage_and_accuracy_are_those_of_each_split() -> None:
    val = np.linspace(1, 0.6, 400, dtype=np.float32), np.arange(400) < 390
    test = np.array([0.9, 0.8, 0.61, 0.2], np.float32), np.array([True, False, True, False])
    found = certainty(0.9, val, test)
    assert found.threshold is not None
    assert (found.val.coverage, found.val.accuracy) == (1, 0.975)
    assert (found.test.coverage, found.test.accuracy) == (0.75, pytest.approx(2 / 3))
    assert [found.is_uncertain(p) for p in (1.0, found.threshold, 0.59)] == [False, False, True]

    none = certainty(0.9999, val, test)
    assert none.threshold is None
    assert none.is_uncertain(1.0)
    assert (none.test.coverage, none.test.accuracy) == (0, None)


def test_too_few_validation_examples_are_refused_before_the_training() -> None:
    check_enough(149, 0.98)
    with pytest.raises(UsageError, match=r"at least 149 .* are 148: raise .* or set a target of 0\.97 or less"):
        check_enough(148, 0.98)


def test_a_run_seals_its_threshold_and_refuses_one_that_it_cannot_show(
    digits_experiment: Callable[..., Config],
) -> None:
    def wanted(target: float) -> Config:
        experiment = digits_experiment(data={"limit": 400}, optim={"lr": 0.1}, trainer={"max_epochs": 4})
        return experiment.model_copy(update={"evaluation": EvaluationConfig(target_accuracy=target)})

    with pytest.raises(UsageError, match="takes at least 2,995 validation examples"):
        train(wanted(0.999))
    run = train(wanted(0.8))
    facts = Bundle.open(run).facts
    assert facts.certainty is not None
    assert json.loads((run / METRICS).read_text())["certain"] == facts.certainty.model_dump()
    [answer] = Predictor(run, "eager").predict([min((run / "bundle" / "samples" / "golden").iterdir())])
    assert isinstance(answer, Prediction)
    assert answer.uncertain is facts.certainty.is_uncertain(answer.probability)


def test_bundles_without_a_threshold_mark_nothing(digits_run: Path) -> None:
    """As those of earlier releases, whose facts lack the key."""
    facts = Bundle.open(digits_run).facts
    assert BundleFacts.model_validate(facts.model_dump(exclude={"certainty"})).certainty is None
    [answer] = Predictor(digits_run, "eager").predict([min((digits_run / "bundle" / "samples" / "golden").iterdir())])
    assert "uncertain" not in answer_row(answer)
    assert "certain" not in json.loads((digits_run / METRICS).read_text())
