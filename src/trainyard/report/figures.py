"""Figures of a run, drawn without a display."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

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
    counts = np.asarray(scores.confusion, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.5 + 0.45 * len(classes), 14.0)
    axes = plain_axes(side + 1, side, "predicted class", "true class")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure = cast("Figure", axes.figure)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_title(f"accuracy {scores.accuracy:.3f}, {counted(scores.examples, 'example')}")
    _name_axes(axes, classes)
    if len(classes) <= MAX_NUMBERED:
        _number_cells(axes, counts, shares)
    return figure


def drawn(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Gives the file of a figure; the same figure gives the same bytes.

    In an SVG text stays text, in the reader's own font, which may have scripts that matplotlib's lacks.
    """
    import matplotlib

    file, unsaid = io.BytesIO(), {"png": ("Software",), "svg": ("Date", "Creator")}
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trainyard"}):
        # Names in a script that the font lacks become boxes; the model card's table has them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format=kind, transparent=kind == "svg", metadata=dict.fromkeys(unsaid[kind]))
    return file.getvalue()


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, atomically."""
    with atomic_write(path) as file:
        file.write(drawn(figure, "png"))


def plain_axes(width: float, height: float, across: str, up: str) -> Axes:
    """An empty figure of this size in inches, with the names of its axes."""
    # Not pyplot: it keeps every figure, needs a backend, and is not made for threads.
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), dpi=100, layout="constrained").add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return axes


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
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
