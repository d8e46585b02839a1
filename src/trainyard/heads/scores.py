"""Scores of a classifier on one split: accuracy, F1, loss, calibration error, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


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
