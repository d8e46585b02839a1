"""What a worker tells the gateway of a request, for metrics and the log; no client gets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError

DIGITS = 3


class Facts(NamedTuple):
    """A request, as its worker saw it. Of the largest one they have about 3 kB.

    Attributes:
        items: How many it holds.
        preprocess_ms: Until its batch was the model's inputs.
        model_ms: Of the model, which answered the whole batch.
        batch: Items in the batch, told once: by its first request.
        labels: Of each item that was answered, the class by its position.
        confidences: The probabilities of these classes.
        measures: What the preprocessor measured of these items, by name.
    """

    items: int
    preprocess_ms: float
    model_ms: float
    batch: int | None
    labels: list[int]
    confidences: list[float]
    measures: dict[str, list[float]]

    @staticmethod
    def of(
        scores: Sequence[NDArray[np.float32] | ItemError],
        measures: Sequence[dict[str, float]],
        preprocess_seconds: float,
        model_seconds: float,
        batch: int | None,
    ) -> Facts:
        """Those of a request, by the probabilities ``[classes] float32`` and measures of its items."""
        found = [(row, one) for row, one in zip(scores, measures, strict=True) if not isinstance(row, ItemError)]
        return Facts(
            len(scores),
            round(preprocess_seconds * 1000, DIGITS),
            round(model_seconds * 1000, DIGITS),
            batch,
            [int(row.argmax()) for row, _ in found],
            [round(float(row.max()), DIGITS) for row, _ in found],
            {name: [round(one[name], DIGITS) for _, one in found] for name in (found[0][1] if found else ())},
        )
