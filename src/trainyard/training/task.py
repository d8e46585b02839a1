"""What the loop asks of a project: a loss, an optimiser, a schedule. All else is the loop's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from trainyard.heads.base import Head
from trainyard.heads.single_label import SingleLabel
from trainyard.models.classifier import Classifier

if TYPE_CHECKING:
    from trainyard.data.loader import Batch


class TrainingTask(nn.Module, ABC):
    """A model with what it learns by.

    It is a module so that DDP and FSDP can wrap the model and its loss together.

    Args:
        model: What is trained.

    Attributes:
        head: What the logits mean; the bundle keeps its name.
        clip: Largest norm of the gradient; ``None`` leaves it as it is.
        ema: Decay of the weights' moving average, which is then what is evaluated and kept; 0 is off.
    """

    head: Head = SingleLabel()
    clip: float | None = None
    ema: float = 0.0

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """Gives logits ``[batch, classes] float32``, also under autocast."""
        logits: Tensor = self.model(**inputs)
        return logits.float()

    def predict(self, inputs: dict[str, Tensor]) -> Tensor:
        """The logits of a validation batch; scoring needs those of the whole split at once."""
        return self.forward(**inputs)

    @abstractmethod
    def training_loss(self, batch: Batch, epoch: int) -> Tensor:
        """The mean loss of a batch. What it draws at random must follow from the seed, ``epoch`` and the examples."""

    @abstractmethod
    def optimizer(self) -> Optimizer:
        """The optimiser over the trainable parameters; each group holds its peak rate under ``peak_lr``."""

    @abstractmethod
    def schedule(self, step: int, total_steps: int) -> float:
        """Factor of every group's peak rate at ``step``: a function of the step, so that nothing of it is saved."""

    def sampling_weights(self, labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """How often each training example is drawn against the others, ``[examples]``; ``None`` is once an epoch."""
        return None
