"""Two models on the same test examples: whether they differ by more than chance, and in which classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import UsageError
from trainyard.evaluation.intervals import paired_interval

Answers: TypeAlias = Mapping[str, tuple[str, str]]
"""By the id of a test example: its class, and the one that it was given."""

CHANCE = 0.05
"""What is less likely than this if both are equally good, isn't taken for chance."""
LEAST_SHARED = 0.5
"""Least share of the smaller test split that both have in common."""
RESAMPLES, CHUNK = 2_000, 100


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
        """Which is better; a difference within chance is none."""
        if self.p_value >= CHANCE:
            return "not distinguishable from"
        return "better than" if self.gained > self.lost else "worse than"

    @property
    def changed_classes(self) -> tuple[ClassDifference, ...]:
        """Those whose recall differs by more than chance."""
        return tuple(one for one in self.classes if one.p_value < CHANCE)

    @property
    def complaints(self) -> tuple[str, ...]:
        """Why the other isn't at least as good: what of it is worse by more than chance; none if it is as good."""
        worse = [one for one in self.changed_classes if one.recall[1] < one.recall[0]]
        complaints = [
            f"its recall of {one.name} is {one.recall[1]:.4f} instead of {one.recall[0]:.4f} (p = {one.p_value:.2g})"
            for one in worse
        ]
        if self.verdict == "worse than":
            first, other = self.accuracy
            complaints.insert(0, f"its accuracy is {other:.4f} instead of {first:.4f} (p = {self.p_value:.2g})")
        return tuple(complaints)


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
    classes = sorted({name for id in ids for name in (*first[id], other[id][1])})
    code = {name: code for code, name in enumerate(classes)}
    rows = np.array([(code[first[id][0]], code[first[id][1]], code[other[id][1]]) for id in ids], np.int64)
    truth, ours, theirs = rows.T
    gained, lost = (ours != truth) & (theirs == truth), (ours == truth) & (theirs != truth)
    macro_f1, macro_f1_interval = _macro_f1(rows, len(classes))
    counts = int(gained.sum()), int(lost.sum())
    return Difference(
        examples=len(ids),
        same_answers=float((ours == theirs).mean()),
        gained=counts[0],
        lost=counts[1],
        accuracy=(float((ours == truth).mean()), float((theirs == truth).mean())),
        accuracy_interval=paired_interval(*counts, len(ids)),
        p_value=mcnemar(*counts),
        macro_f1=macro_f1,
        macro_f1_interval=macro_f1_interval,
        classes=_class_differences(classes, truth, ours, theirs),
    )


def mcnemar(gained: int, lost: int) -> float:
    """How likely so unequal numbers are if each of these examples went either way by chance: two-sided, mid-p."""
    from scipy.stats import binom

    fewer, both = min(gained, lost), gained + lost
    return float(min(1.0, 2 * binom.cdf(fewer, both, 0.5) - binom.pmf(fewer, both, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm 1979, Scand J Stat 6:65-70)."""
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(raised, 1)
    return [float(p) for p in corrected]


def _common_ids(first: Answers, other: Answers, names: tuple[str, str]) -> list[str]:
    shared = [id for id in first if id in other]
    if len(shared) < LEAST_SHARED * min(len(first), len(other)):
        raise UsageError(
            f"{names[0]} and {names[1]} were tested on other data: {len(shared):,} examples are in both of their test "
            f"splits, which have {len(first):,} and {len(other):,}; train both on the same data and, where the split "
            "is held out, with the same seed or data.split_seed"
        )
    if relabelled := sum(first[id][0] != other[id][0] for id in shared):
        raise UsageError(
            f"{names[0]} and {names[1]} were tested on other labels: {relabelled:,} of {len(shared):,} examples have "
            "another class since; train the older one again"
        )
    return shared


def _class_differences(
    classes: Sequence[str], truth: NDArray[np.int64], ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> tuple[ClassDifference, ...]:
    found = []
    for code in np.unique(truth).tolist():
        right, others = ours[truth == code] == code, theirs[truth == code] == code
        recall = float(right.mean()), float(others.mean())
        p_value = mcnemar(int((others & ~right).sum()), int((right & ~others).sum()))
        found.append((classes[code], len(right), recall, p_value))
    corrected = holm([row[-1] for row in found])
    differences = (ClassDifference(*row[:3], p) for row, p in zip(found, corrected, strict=True))
    return tuple(sorted(differences, key=lambda one: (one.p_value, one.recall[1] - one.recall[0], one.name)))


def _macro_f1(rows: NDArray[np.int64], classes: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """That of both, and the interval of the difference.

    Examples with the same class and answers can't be told apart, so that their numbers are drawn and not they.
    """
    from scipy.sparse import csr_array

    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    each = np.arange(len(kinds))

    def of_class(column: int, among: NDArray[np.bool_]) -> csr_array:
        return csr_array((np.ones(among.sum()), (each[among], kinds[among, column])), (len(kinds), classes))

    everything = np.ones(len(kinds), bool)
    support = of_class(0, everything)
    parts = [(of_class(column, kinds[:, column] == kinds[:, 0]), of_class(column, everything)) for column in (1, 2)]

    def scores(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        f1 = []
        for hits, predicted in parts:
            found = drawn @ predicted + drawn @ support
            f1.append((2 * (drawn @ hits) / np.maximum(found, 1)).sum(axis=1) / (found > 0).sum(axis=1))
        return np.stack(f1, axis=1)

    [both] = scores(counts[None])
    generator = np.random.default_rng(0)
    draws = (generator.multinomial(len(rows), counts / len(rows), CHUNK) for _ in range(RESAMPLES // CHUNK))
    differences = np.concatenate([np.diff(scores(drawn), axis=1)[:, 0] for drawn in draws])
    low, high = np.quantile(differences, (0.025, 0.975))
    return (float(both[0]), float(both[1])), (float(low), float(high))
