"""From which probability on an answer can be relied on, by a bound that holds for examples to come."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Certainty, Covered
from trainyard.base.errors import UsageError

Answers: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""The probability of each answer of a split, ``[examples] float32``, and whether it is right, ``[examples] bool``."""
RISK = 0.05
"""How often the bound may fail: in one of twenty trainings."""


def check_enough(examples: int, target: float) -> None:
    """Looks whether so many validation examples can show the wanted accuracy, if every one is answered right.

    Raises:
        UsageError: they can't.
    """
    least = _least(target, RISK)
    if examples < least:
        possible = math.floor(100 * RISK ** (1 / examples)) / 100
        raise UsageError(
            f"evaluation.target_accuracy={target:g} takes at least {least:,} validation examples to be shown, "
            f"and there are {examples:,}: raise data.val_fraction, or set a target of {possible:g} or less"
        )


def choose_threshold(confidence: NDArray[np.float32], right: NDArray[np.bool_], target: float) -> float | None:
    """The lowest probability from which on answers are right as often as wanted, with 95 % confidence.

    An answer is certain from the threshold on. Of all thresholds the one that just reaches the target on these examples
    would be chosen by luck, and miss it on others as often as not. So each must pass an exact binomial test (selective
    classification with guaranteed risk, Geifman & El-Yaniv 2017, arXiv:1705.08500), and they are tested in a fixed
    order, from few answers to many until one fails, which needs no correction for their number (Learn then Test,
    Angelopoulos et al. 2021, arXiv:2110.01052). The order starts at a half, a quarter, an eighth and so on of the
    examples, and the starts share the risk.

    Args:
        confidence: Probability of each answer, ``[examples] float32``.
        right: Which of them are right, ``[examples] bool``.
        target: The wanted share of right answers.

    Returns:
        The threshold; none if no answers are right so often, or the examples are too few to show it.
    """
    from scipy.stats import binom

    order = np.argsort(-confidence, kind="stable")
    ranked, count = confidence[order], len(confidence)
    ends = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True)) + 1  # equal ones are certain together
    chance = binom.cdf(np.cumsum(~right[order])[ends - 1], ends, 1 - target)
    starts = _starts(count, target)
    most = 0
    for start in starts:
        first = int(np.searchsorted(ends, start))
        passed = int(np.argmax(np.append(chance[first:], 1) > RISK / len(starts)))
        most = max(most, int(ends[first + passed - 1]) if passed else 0)
    return float(ranked[most - 1]) if most else None


def certainty(target: float, val: Answers, test: Answers) -> Certainty:
    """Chooses the threshold on the validation split, and measures it on both; ``target`` is as above."""
    threshold = choose_threshold(*val, target)
    return Certainty(
        target_accuracy=target, threshold=threshold, val=_covered(*val, threshold), test=_covered(*test, threshold)
    )


def _covered(confidence: NDArray[np.float32], right: NDArray[np.bool_], threshold: float | None) -> Covered:
    chosen = right[confidence >= (math.inf if threshold is None else threshold)]
    return Covered(coverage=len(chosen) / len(right), accuracy=float(chosen.mean()) if len(chosen) else None)


def _least(target: float, risk: float) -> int:
    """Examples that pass the test if all are answered right."""
    return math.ceil(math.log(risk) / math.log(target))


def _starts(count: int, target: float) -> list[int]:
    """With how many certain answers to begin; as many as each still can pass with its share of the risk."""
    if count < _least(target, RISK):
        return []
    starts = [max(count // 2, _least(target, RISK))]
    while (half := starts[-1] // 2) >= _least(target, RISK / (len(starts) + 1)):
        starts.append(half)
    return starts
