"""Figures of a run, drawn without a display."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainyard.base.files import atomic_write
from trainyard.base.words import counted
from trainyard.heads.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED = 25
"""Most classes whose cells bear their counts; more would overlap."""
MAX_NAMED = 60
"""Most classes that are named along the axes."""
MAX_NAME = 24
"""Longest class name that is shown whole, in characters."""


def confusion_matrix(scores: Scores, classes: Sequence[str]) -> Figure:
    """Draws the confusion matrix: colour is the share of the true class, numbers are counts.

    Args:
        scores: Of the split that is shown.
        classes: Names of the classes, in the order of the logits.
    """
    # Not pyplot: it keeps every figure, needs a backend, and is not made for threads.
    from matplotlib.figure import Figure

    counts = np.asarray(scores.confusion, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.5 + 0.45 * len(classes), 14.0)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_title(f"accuracy {scores.accuracy:.3f}, {counted(scores.examples, 'example')}")
    _name_axes(axes, classes)
    if len(classes) <= MAX_NUMBERED:
        _number_cells(axes, counts, shares)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically; the same figure gives the same bytes."""
    with atomic_write(path) as file, boxes_allowed():
        figure.savefig(file, format="png", metadata={"Software": None})


def to_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Gives a figure as ``[height, width, 3] uint8``."""
    file = io.BytesIO()
    with boxes_allowed():
        figure.savefig(file, format="png")
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def boxes_allowed() -> Iterator[None]:
    """Names in a script that the font lacks become boxes; the model card's table has them in full."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) > MAX_NAMED:
        return  # The default ticks then give the classes' indices.
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in classes]
    # parse_math: a dollar sign in a name is a dollar sign.
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)


def _number_cells(axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
