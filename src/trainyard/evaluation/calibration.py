"""Temperature scaling: probabilities that are right as often as they say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainyard.base.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

MIN_TEMPERATURE = 0.5
MAX_TEMPERATURE = 5.0
"""Bounds of the temperature: a split without an error would send it to 0, and then every answer would claim
to be certain."""
BISECTIONS = 30
"""Halvings of the range of log T, which then is 2e-9 wide: finer than the six decimals that are given."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T within the bounds that minimises the mean cross entropy of ``softmax(logits / T)`` (Guo et al. 2017).

    The loss is convex in 1/T, so its slope changes sign once, and halving the range of log T finds where.
    Works in float64 on the CPU and doesn't depend on the number of threads: the same input gives the same bits.

    Args:
        logits: Of the validation split, ``[examples, classes] float32``.
        labels: ``[examples] int64``.

    Raises:
        DataError: there are no examples, or logits are not finite.
    """
    if len(labels) == 0:
        raise DataError("the validation split is empty, so no temperature can be fitted; raise data.val_fraction")
    if not bool(logits.isfinite().all()):
        raise DataError("the model's logits on the validation split are not finite; train again with a lower optim.lr")
    logits, labels = logits.detach().double().cpu(), labels.detach().cpu()
    logits = logits - logits.amax(dim=1, keepdim=True)
    if _slope(logits, labels, 1.0) == 0:
        return 1.0  # Already at the minimum; also where no T makes a difference, as all logits are equal.
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _slope(logits, labels, math.exp(middle)) > 0:
            low = middle  # A sharper softmax would cost: the minimum lies at a higher temperature.
        else:
            high = middle
    return round(math.exp((low + high) / 2), 6)


def _slope(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Derivative of the summed cross entropy by 1/T: expected minus true logit."""
    expected = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1)
    true = logits.gather(1, labels[:, None]).squeeze(1)
    return math.fsum((expected - true).tolist())
