"""What observers of a training are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from trainyard.heads.scores import Scores


@dataclass(frozen=True)
class StepReport:
    """What is known after an optimiser step.

    Attributes:
        loss: A tensor, so that a GPU needn't be waited for.
        lr: The highest rate that any parameter group has in this step.
        epochs: The most that the run may have.
        best: The monitored metric's best value of the validations so far.
    """

    step: int
    total_steps: int
    epoch: int
    loss: Tensor
    lr: float
    examples_per_second: float
    epochs: int
    best: float | None


@dataclass(frozen=True)
class Validation:
    """The outcome of an epoch's validation; ``logits`` are ``[examples, classes] float32``."""

    epoch: int
    step: int
    scores: Scores
    logits: Tensor
    improved: bool


class Observer(Protocol):
    """Someone who is told how training goes; called on rank 0 only."""

    def on_step(self, report: StepReport) -> None:
        """After every optimiser step."""

    def on_validation(self, validation: Validation) -> None:
        """After the validation of every epoch."""
