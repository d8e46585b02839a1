"""One label for each example: the classes shut each other out, and their probabilities add up to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import DataError
from trainyard.heads.base import Head, Prediction
from trainyard.heads.scores import ClassScores, Scores

if TYPE_CHECKING:
    from torch import Tensor

ECE_BINS = 15


class SingleLabel(Head):
    """Softmax over the classes; labels are ``[examples] int64``, indices into them.

    A target of the loss may also be a distribution over the classes, ``[batch, classes]``, as of mixed images.
    """

    name = "classification"

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Cross entropy."""
        from torch.nn import functional

        return functional.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing)

    def scores(self, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
        """Scores the most probable class, and how far its probability can be believed."""
        logits, labels = logits.detach().double().cpu(), labels.detach().cpu()
        _check(logits, labels, classes)
        predicted = logits.argmax(dim=1)
        confusion = _confusion(predicted, labels, len(classes))
        per_class = dict(zip(classes, _class_scores(confusion), strict=True))
        occurs = (confusion.sum(0) + confusion.sum(1) > 0).tolist()
        f1_scores = [scores.f1 for scores in compress(per_class.values(), occurs)]
        losses = -logits.log_softmax(dim=1).gather(1, labels[:, None])
        return Scores(
            accuracy=int(confusion.trace()) / len(labels),
            macro_f1=math.fsum(f1_scores) / len(f1_scores),
            loss=math.fsum(losses.flatten().tolist()) / len(labels),
            ece=_calibration_error(logits, predicted == labels),
            examples=len(labels),
            per_class=per_class,
            confusion=confusion.tolist(),
        )

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The softmax of each row."""
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def answer(self, probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int) -> Prediction:
        """The most probable class, and the next ones; of equal ones the first."""
        best = np.argsort(-probabilities, kind="stable")[: max(1, top_k)]
        top = [(labels[i], float(probabilities[i])) for i in best]
        return Prediction(label=top[0][0], probability=top[0][1], top=top)

    def compared(self, scores: Scores) -> dict[str, float]:
        """Macro-F1 beside accuracy, as a rare class that got lost hardly shows in the latter."""
        return {"accuracy": scores.accuracy, "macro-F1": scores.macro_f1}

    def agrees(self, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where both prefer the same class."""
        agreeing: NDArray[np.bool_] = logits.argmax(axis=1) == reference.argmax(axis=1)
        return agreeing


def _check(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    assert logits.shape == (len(labels), len(classes)), (logits.shape, labels.shape, len(classes))
    assert len(set(classes)) == len(classes), "two classes have the same name"
    if len(labels) == 0:
        raise DataError("there are no examples to score: the split is empty; check data.path and the split's files")
    assert 0 <= int(labels.min()) <= int(labels.max()) < len(classes)
    if broken := int((~logits.isfinite()).any(dim=1).sum()):
        raise DataError(
            f"the model's logits are not finite for {broken} of {len(labels)} examples: its weights have diverged; "
            "train again with a lower optim.lr, or with optim.clip=1"
        )


def _confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts ``[classes, classes] int64``.

    Not by torchmetrics: under ``torch.use_deterministic_algorithms`` it counts through a tensor of
    examples x classes^2 integers, which are 400 TB for ImageNet's validation split.
    """
    return (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes)


def _class_scores(confusion: Tensor) -> list[ClassScores]:
    counts = zip(confusion.diag().tolist(), confusion.sum(0).tolist(), confusion.sum(1).tolist(), strict=True)
    return [
        ClassScores(
            precision=_share(hits, predicted),
            recall=_share(hits, support),
            f1=_share(2 * hits, predicted + support),
            support=support,
        )
        for hits, predicted, support in counts
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _calibration_error(logits: Tensor, right: Tensor) -> float:
    """ECE (Guo et al. 2017): how far the answers of a bin are from the confidence in them, over bins ((m-1)/M, m/M]."""
    confidence = logits.softmax(dim=1).amax(dim=1).double()
    bins = (confidence * ECE_BINS).ceil().long() - 1
    gaps = bins.bincount(confidence - right.double(), minlength=ECE_BINS)
    return float(gaps.abs().sum() / len(right))
