"""What a model's inputs and answers were like on its test split, and how far live ones are from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from trainyard.artifacts.bundle import BundleFacts

DIGITS = 3
"""Decimals of what is compared: formats of one model differ behind them."""
DECILES = np.linspace(0.1, 1, 10)
GROUPS = 10
"""Classes that are compared one by one; of more, neighbours are compared together, as few live items fall on each."""


class Bins(BaseModel):
    """How often each range of a value came.

    Attributes:
        edges: Between the ranges, ascending; a value on an edge counts to the range below.
        counts: Of each range, one more than edges.
    """

    edges: list[float]
    counts: list[int]

    @staticmethod
    def of(values: ArrayLike) -> Bins:
        """Those between the deciles of at least one value, and one below all of them, which is empty."""
        found = _rounded(values)
        edges = np.unique(np.round([found.min() - 0.5 * 10.0**-DIGITS, *np.quantile(found, DECILES)], DIGITS + 1))
        return Bins(edges=edges.tolist(), counts=_counts(found, edges).tolist())

    def psi(self, values: ArrayLike) -> float:
        """How far these values are from those; see ``psi``."""
        return psi(np.asarray(self.counts), _counts(_rounded(values), np.asarray(self.edges)))


class DriftReference(BaseModel):
    """What a bundle knows of its test split.

    Attributes:
        split: Where it was measured.
        examples: Of that split.
        labels: How often each class was the answer, in the order of the labels.
        confidence: The probabilities of these answers.
        mean_confidence: Their mean: the accuracy that can be expected where they are calibrated.
        measures: What the preprocessor measures of inputs, by name.
    """

    split: str
    examples: int
    labels: list[int]
    confidence: Bins
    mean_confidence: float
    measures: dict[str, Bins]

    @staticmethod
    def of(probabilities: NDArray[np.float32], measures: Mapping[str, ArrayLike]) -> DriftReference:
        """That of a test split.

        Args:
            probabilities: Of its examples, ``[examples, classes] float32``.
            measures: What was measured of some of them, by name.
        """
        confidence = probabilities.max(axis=1)
        return DriftReference(
            split="test",
            examples=len(probabilities),
            labels=np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]).tolist(),
            confidence=Bins.of(confidence),
            mean_confidence=float(confidence.mean()),
            measures={name: Bins.of(values) for name, values in measures.items()},
        )

    @staticmethod
    def read(facts: BundleFacts) -> DriftReference | None:
        """A bundle's; none of an earlier release's, which has figures of the training split that can't be compared."""
        return DriftReference.model_validate(facts.drift_reference) if "split" in facts.drift_reference else None

    def frequent(self, count: int) -> list[int]:
        """The classes that were answered most often, so many of them, by their position."""
        order: list[int] = np.argsort(-np.asarray(self.labels), kind="stable").tolist()
        return order[:count]

    def labels_psi(self, labels: Sequence[int]) -> float:
        """How far the classes of live answers are from the reference's."""
        counts = np.asarray(self.labels)
        if len(counts) > GROUPS:
            return Bins.of(np.repeat(np.arange(len(counts)), counts)).psi(labels)
        return psi(counts, np.bincount(labels, minlength=len(counts)))


def psi(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """The population stability index between two counts of the same ranges; below 0.1 is alike, above 0.25 another.

    From it is taken what chance alone would give so few examples, as a small test split would else look like drift.
    """
    ranges = int(((expected > 0) | (found > 0)).sum())
    chance = (ranges - 1) * float(1 / expected.sum() + 1 / found.sum())
    p, q = _shares(expected), _shares(found)
    distance = float(((p - q) * np.log(p / q)).sum())
    return max(0.0, distance - chance)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Half an example is added to each range: the logarithm of none would be infinite."""
    shares: NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
    return shares


def _rounded(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).round(DIGITS)


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
