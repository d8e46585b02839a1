"""Scores of a classifier on one split: accuracy, F1, loss, calibration error, confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from typing import TYPE_CHECKING

from trainyard.base.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

ECE_BINS = 15


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class against all others; a share of nothing is 0.

    Attributes:
        support: Examples of this class.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    Attributes:
        macro_f1: Mean F1 of the classes that occur among the labels or the predictions; one that occurs in neither
            says nothing about the model. This is scikit-learn's ``f1_score(..., average="macro", zero_division=0)``.
        loss: Mean cross entropy, in nats.
        ece: Expected calibration error of the top prediction, 15 bins (Guo et al. 2017).
        examples: Number of examples.
        per_class: By class name, in the order of the logits.
        confusion: Counts; rows are true classes, columns predicted ones.
        metrics: The project's own, by name.
    """

    accuracy: float
    macro_f1: float
    loss: float
    ece: float
    examples: int
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def correct(self) -> int:
        """Number of examples whose prediction is right."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    def summary(self) -> dict[str, float]:
        """The figures that ``metrics.json`` has of a split."""
        ours = {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "loss": self.loss, "ece": self.ece}
        return ours | self.metrics

    def to_dict(self) -> dict[str, object]:
        """All scores, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, object]) -> Scores:
        """Reads what ``to_dict`` gave."""
        from pydantic import TypeAdapter

        return TypeAdapter(Scores).validate_python(values)


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Scores logits against the true classes.

    All sums are in float64 on the CPU and don't depend on the number of threads: the same input gives the same bits.
    The order of the examples shows in the last bits only; callers who shard a split put it back in order first.

    Args:
        logits: ``[examples, classes] float32``.
        labels: ``[examples] int64``, indices into ``classes``.
        classes: Names of the classes, each different.

    Raises:
        DataError: there are no examples, or logits are not finite.
    """
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
    """Top-label ECE: that of the binary forecast "my prediction is right"."""
    from torchmetrics.functional.classification import binary_calibration_error

    # torchmetrics puts 1.0 into a bin of its own beyond the last one; in the paper it belongs to the last.
    confidence = logits.softmax(dim=1).amax(dim=1).clamp(max=math.nextafter(1.0, 0.0))
    return float(binary_calibration_error(confidence, right.long(), n_bins=ECE_BINS))
