"""Differences of two models on the same examples: what is chance isn't claimed, and what isn't is found."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from sklearn.metrics import f1_score

from trainyard.base.errors import UsageError
from trainyard.evaluation.paired import Answers, compare, holm, mcnemar

NAMES = "runs/a", "runs/b"
CLASSES = "abcdefghij"


def answered(seed: int, accuracy: float, examples: int = 400, truth_seed: int = 0) -> dict[str, tuple[str, str]]:
    """Answers to the same examples of ten classes, whatever the seed."""
    truth = np.random.default_rng(truth_seed).integers(0, 10, examples)
    random = np.random.default_rng(seed)
    given = np.where(random.random(examples) < accuracy, truth, random.integers(0, 10, examples))
    return {str(i): (CLASSES[a], CLASSES[b]) for i, (a, b) in enumerate(zip(truth, given, strict=True))}


def broken(answers: Answers, name: str, instead: str) -> dict[str, tuple[str, str]]:
    return {id: (label, instead if given == name else given) for id, (label, given) in answers.items()}


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (0, 5), (7, 2), (30, 50)])
def test_p_is_that_of_the_definition(gained: int, lost: int) -> None:
    both, fewer = gained + lost, min(gained, lost)
    tail = sum(comb(both, k) for k in range(fewer)) + comb(both, fewer) / 2
    assert mcnemar(gained, lost) == pytest.approx(2 * tail / 2**both)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_p_values_are_corrected_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]


def test_two_models_that_are_as_good_hardly_ever_differ() -> None:
    """By chance in one of twenty, or less, as rare mistakes make the tests careful."""
    found = [compare(answered(2 * i + 1, 0.9), answered(2 * i + 2, 0.9), NAMES) for i in range(40)]
    assert sum(one.verdict != "not distinguishable from" for one in found) <= 4
    assert sum(bool(one.changed_classes) for one in found) <= 4


def test_a_better_model_is_found_and_is_the_worse_one_the_other_way_round() -> None:
    good, bad = answered(1, 0.95), answered(2, 0.7)
    found, reverse = compare(bad, good, NAMES), compare(good, bad, NAMES)
    assert (found.verdict, found.complaints) == ("better than", ())
    assert reverse.verdict == "worse than"
    assert reverse.complaints[0].startswith("its accuracy is ")
    assert found.accuracy_interval[0] > 0
    assert reverse.accuracy_interval == pytest.approx([-bound for bound in reversed(found.accuracy_interval)])


def test_a_class_that_broke_is_named() -> None:
    answers = answered(1, 0.95)
    found = compare(answers, broken(answers, "g", "a"), NAMES)
    assert [one.name for one in found.changed_classes] == ["g"]
    assert found.classes[0].recall[1] == 0
    assert [complaint.split(" is ")[0] for complaint in found.complaints] == ["its accuracy", "its recall of g"]


def test_a_rare_class_that_broke_is_named_though_the_accuracy_says_nothing() -> None:
    """As the other gained elsewhere what it lost there."""
    often = {f"{i} more": ("b", "b") for i in range(400)}
    first = often | {str(i): ("rare", "rare") for i in range(12)} | {f"{i} more": ("b", "a") for i in range(12)}
    other = often | {str(i): ("rare", "b") for i in range(12)}
    found = compare(first, other, NAMES)
    assert found.verdict == "not distinguishable from"
    assert [complaint.partition(" (")[0] for complaint in found.complaints] == [
        "its recall of rare is 0.0000 instead of 1.0000"
    ]


def test_macro_f1_is_scikit_learns_and_its_interval_that_of_resampled_examples() -> None:
    first, other = answered(1, 0.9, 150), broken(answered(2, 0.8, 150), "c", "a")
    found = compare(first, other, NAMES)

    truth, ours = zip(*first.values(), strict=True)
    theirs = [given for _, given in other.values()]
    rows = np.array([truth, ours, theirs])

    def macro_f1(chosen: np.ndarray) -> list[float]:
        return [f1_score(rows[0, chosen], rows[k, chosen], average="macro", zero_division=0) for k in (1, 2)]

    assert found.macro_f1 == pytest.approx(macro_f1(np.arange(150)))
    random = np.random.default_rng(0)
    differences = [float(np.diff(macro_f1(random.integers(0, 150, 150)))[0]) for _ in range(400)]
    assert found.macro_f1_interval == pytest.approx(np.quantile(differences, (0.025, 0.975)), abs=0.02)


def test_the_same_answers_differ_in_nothing() -> None:
    answers = answered(1, 0.9)
    found = compare(answers, dict(reversed(answers.items())), NAMES)
    assert (found.verdict, found.p_value, found.same_answers, found.complaints) == (
        "not distinguishable from",
        1,
        1,
        (),
    )
    assert found.macro_f1_interval == (0, 0)


def test_examples_that_only_one_has_are_left_out() -> None:
    first = answered(1, 0.9)
    other = dict(list(answered(2, 0.9).items())[:250]) | {"new": ("a", "b")}
    assert compare(first, other, NAMES).examples == 250


def test_runs_of_other_data_are_refused_with_the_reason() -> None:
    first = answered(1, 0.9)
    others = {f"{id} elsewhere" if int(id) > 100 else id: answer for id, answer in first.items()}
    with pytest.raises(
        UsageError, match=r"runs/a and runs/b were tested on other data: 101 examples .* data\.split_seed"
    ):
        compare(first, others, NAMES)
    relabelled = {**first, "3": ("another", "a")}
    with pytest.raises(UsageError, match="other labels: 1 of 400 examples"):
        compare(first, relabelled, NAMES)
