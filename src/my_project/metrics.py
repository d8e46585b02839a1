"""Metrics of yours, measured wherever accuracy, macro_f1, loss and ece are.

A metric is a function here and a line under ``metrics`` in ``__init__.py``: ``trainer.monitor`` then takes its name,
and it is in ``metrics.json``, ``metrics.csv``, the trackers and the model card. More counts as better, unless
``less_is_better`` of ``trainyard.evaluation.metrics`` stands above the function.
"""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean over the classes of the share of their examples that are found (Brodersen et al. 2010).

    Args:
        logits: Of a whole split, ``[examples, classes] float32``, on the CPU.
        labels: ``[examples] int64``.
    """
    found = (logits.argmax(dim=1) == labels).double()
    # A class without an example in this split says nothing about the model, so it isn't counted as 0.
    shares = [found[labels == label].mean() for label in sorted(set(labels.tolist()))]
    return float(torch.stack(shares).mean())
