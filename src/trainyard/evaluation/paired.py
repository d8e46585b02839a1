"""Two models on the same test examples: whether they differ by more than chance, and in which classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainyard.base.errors import UsageError
from trainyard.base.words import counted
from trainyard.evaluation.intervals import paired_interval, verdict

Answers: TypeAlias = Mapping[str, tuple[str, str]]
"""By the id of a test example: its class, and the one that it was given."""

CHANCE = 0.05
"""What is less likely than this if both are equally good, isn't taken for chance."""
LEAST_SHARED = 0.5
"""Least share of the smaller test split that both have in common."""
RESAMPLES = 2_000


@dataclass(frozen=True)
class ClassDifference:
    """What both make of the examples of one class.

    Attributes:
        recall: The first's share of right answers, and the other's.
        p_value: Corrected for the number of classes (Holm 1979).
    """

    name: str
    examples: int
    recall: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Difference:
    """How a model differs from a first one; of pairs of figures, the first's comes first.

    Attributes:
        examples: Test examples that both answered.
        same_answers: Share of them that got the same class from both.
        gained: How many only the other answers right.
        lost: How many only the first does.
        accuracy_interval: 95 % interval of the difference (Bonett & Price 2012).
        p_value: Of McNemar's exact test, mid-p (Fagerland, Lydersen & Laake 2013, BMC Med Res Methodol 13:91).
        macro_f1_interval: 95 % interval of the difference, by the paired bootstrap (Efron 1979).
        classes: The most different first.
    """

    examples: int
    same_answers: float
    gained: int
    lost: int
    accuracy: tuple[float, float]
    accuracy_interval: tuple[float, float]
    p_value: float
    macro_f1: tuple[float, float]
    macro_f1_interval: tuple[float, float]
    classes: tuple[ClassDifference, ...]

    @property
    def verdict(self) -> str:
        """Whether the other is better or worse than the first."""
        return verdict(self.gained - self.lost, self.p_value >= CHANCE)

    @property
    def changed_classes(self) -> tuple[ClassDifference, ...]:
        """Those whose recall differs by more than chance."""
        return tuple(one for one in self.classes if one.p_value < CHANCE)

    @property
    def complaints(self) -> tuple[str, ...]:
        """Why the other isn't at least as good: what of it is worse by more than chance; none if it is as good."""
        changed = [("accuracy", self.accuracy, self.p_value)] if self.verdict == "worse than" else []
        changed += [(f"recall of {one.name}", one.recall, one.p_value) for one in self.changed_classes]
        return tuple(
            f"its {what} is {other:.4f} instead of {first:.4f} (p = {p_value:.2g})"
            for what, (first, other), p_value in changed
            if other < first
        )


def compare(first: Answers, other: Answers, names: tuple[str, str]) -> Difference:
    """Compares the answers to the test examples that both were given.

    Args:
        first: The answers of the one to compare with.
        other: The other's.
        names: What they are called in errors.

    Raises:
        UsageError: they were tested on other data.
    """
    ids = _common_ids(first, other, names)
    # Objects, as a string of numpy has no NUL at its end.
    told = np.array([(*first[id], other[id][1]) for id in ids], dtype=object)
    classes, codes = np.unique(told, return_inverse=True)
    rows = codes.reshape(told.shape)
    truth, (ours, theirs) = rows[:, 0], (rows[:, column] == rows[:, 0] for column in (1, 2))
    support, right, others, gained, lost = (
        np.bincount(truth[chosen], minlength=len(classes))
        for chosen in (truth >= 0, ours, theirs, theirs & ~ours, ours & ~theirs)
    )
    there = np.flatnonzero(support)
    p_values = holm(mcnemar(gained[there], lost[there]))
    differences = [
        ClassDifference(str(classes[i]), int(support[i]), (right[i] / support[i], others[i] / support[i]), p_value)
        for i, p_value in zip(there, p_values, strict=True)
    ]
    counts = int(gained.sum()), int(lost.sum())
    macro_f1, macro_f1_interval = _macro_f1(rows, len(classes))
    return Difference(
        examples=len(ids),
        same_answers=float((rows[:, 1] == rows[:, 2]).mean()),
        gained=counts[0],
        lost=counts[1],
        accuracy=(float(ours.mean()), float(theirs.mean())),
        accuracy_interval=paired_interval(*counts, len(ids)),
        p_value=float(mcnemar(*counts)),
        macro_f1=macro_f1,
        macro_f1_interval=macro_f1_interval,
        classes=tuple(sorted(differences, key=lambda one: (one.p_value, one.recall[1] - one.recall[0], one.name))),
    )


def mcnemar(gained: ArrayLike, lost: ArrayLike) -> NDArray[np.float64]:
    """How likely so unequal numbers are if each of these examples went either way by chance: two-sided, mid-p."""
    from scipy.stats import binom

    fewer, both = np.minimum(gained, lost), np.add(gained, lost)
    return np.asarray(np.minimum(1, 2 * binom.cdf(fewer, both, 0.5) - binom.pmf(fewer, both, 0.5)))


def holm(p_values: ArrayLike) -> list[float]:
    """Corrects p-values for their number (Holm 1979, Scand J Stat 6:65-70)."""
    ascending = np.sort(p_values)
    raised = np.maximum.accumulate(ascending * np.arange(len(ascending), 0, -1)).clip(max=1)
    return [float(p_value) for p_value in raised[np.argsort(np.argsort(p_values, kind="stable"))]]


def _common_ids(first: Answers, other: Answers, names: tuple[str, str]) -> list[str]:
    shared = [id for id in first if id in other]
    if len(shared) < LEAST_SHARED * min(len(first), len(other)):
        raise UsageError(
            f"{names[0]} and {names[1]} were tested on other data: "
            f"{counted(len(shared), 'example is', 'examples are')} in both of their test "
            f"splits, which have {len(first):,} and {len(other):,}; train both on the same data and, where the split "
            "is held out, with the same seed or data.split_seed"
        )
    if relabelled := sum(first[id][0] != other[id][0] for id in shared):
        raise UsageError(
            f"{names[0]} and {names[1]} were tested on other labels: {relabelled:,} of {len(shared):,} examples have "
            "another class since; train the older one again"
        )
    return shared


def _macro_f1(rows: NDArray[np.int64], classes: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """That of both, and the interval of the difference; ``rows`` are ``[examples, 3]``: the class, and the two answers.

    Examples with the same class and answers can't be told apart, so that their numbers are drawn and not they.
    """
    kinds, counts = np.unique(rows, axis=0, return_counts=True)

    def f1(column: int, drawn: NDArray[np.int64]) -> float:
        truth, given = kinds[:, 0], kinds[:, column]
        hits = np.bincount(truth, drawn * (given == truth), classes)
        found = np.bincount(truth, drawn, classes) + np.bincount(given, drawn, classes)
        return float((2 * hits / np.maximum(found, 1)).sum() / (found > 0).sum())

    generator = np.random.default_rng(0)
    draws = (generator.multinomial(len(rows), counts / len(rows)) for _ in range(RESAMPLES))
    low, high = np.quantile([f1(2, drawn) - f1(1, drawn) for drawn in draws], (0.025, 0.975)).tolist()
    return (f1(1, counts), f1(2, counts)), (low, high)
