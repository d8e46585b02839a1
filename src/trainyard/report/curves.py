"""Figures of the HTML report, as SVG: how training went, and how far the model's confidence can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from trainyard.report.figures import plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 10
"""Of confidence."""
LEAST_COVERED = 5
"""Examples: the accuracy of fewer jumps about."""


def learning_curve(rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> Figure:
    """Draws some columns of ``metrics.csv`` by epoch.

    Args:
        rows: An epoch each; what wasn't measured is left out.
        columns: Their names.
    """
    from matplotlib.ticker import MaxNLocator

    axes = _axes("epoch", "")
    for column in columns:
        known = [(row["epoch"], row[column]) for row in rows if column in row]
        axes.plot(*np.array(known).reshape(-1, 2).T, "o-", markersize=3, label=column.replace("_", " "))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return cast("Figure", axes.figure)


def reliability(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Figure:
    """Draws the share of right answers by their confidence; the area of a point grows with their number.

    Args:
        confidence: Probability of each answer, ``[examples] float32``.
        right: Which answers are right, ``[examples] bool``.
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    filled = counts > 0
    sure, true = (np.bincount(place, one, BINS)[filled] / counts[filled] for one in (confidence, right))
    axes = _axes("confidence", "share that is right")
    axes.plot([0, 1], [0, 1], "--", color="grey", label="as often right as sure")
    axes.scatter(sure, true, 20 + 200 * counts[filled] / len(right), alpha=0.8)
    axes.legend(loc="upper left")
    return cast("Figure", axes.figure)


def coverage(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Figure:
    """Draws the accuracy of the surest answers by how many those are; arguments as of ``reliability``."""
    covered = np.arange(1, len(right) + 1)
    accuracy = np.cumsum(right[np.argsort(-confidence, kind="stable")]) / covered
    shown = covered >= min(LEAST_COVERED, len(right))
    axes = _axes("share of the answers, the surest first", "accuracy of those")
    axes.plot(covered[shown] / len(right), accuracy[shown])
    axes.set_xlim(0, 1)
    return cast("Figure", axes.figure)


def _axes(across: str, up: str) -> Axes:
    axes = plain_axes(4.6, 3.4, across, up)
    axes.grid(alpha=0.3)
    return axes
