"""What every head can do, and the form of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError

if TYPE_CHECKING:
    from torch import Tensor

    from trainyard.heads.scores import Scores


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        label: The most probable class.
        probability: Its probability, calibrated on the validation split.
        top: The most probable classes with their probabilities, best first.
        uncertain: Whether it is less probable than one to rely on is; none if the training set no bound.
    """

    label: str
    probability: float
    top: list[tuple[str, float]]
    uncertain: bool | None = field(default=None, kw_only=True)

    def row(self) -> dict[str, object]:
        """The answer as an object of JSON."""
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        marked = {} if self.uncertain is None else {"uncertain": self.uncertain}
        return {"label": self.label, "probability": self.probability, **marked, "top": top}


def answer_row(answer: Prediction | ItemError) -> dict[str, object]:
    """An answer or an error as an object of JSON, as the command line and the servers show it."""
    return {"error": str(answer)} if isinstance(answer, ItemError) else answer.row()


class Head(ABC):
    """What logits mean, from the loss that they are learnt by to the answer that is made of them.

    It holds no state, and imports torch in the methods that are given tensors: a server may have none.

    Attributes:
        name: The last word of a bundle's ``task``, by which its head is found.
    """

    name: ClassVar[str]

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch, to train by.

        Args:
            logits: ``[batch, classes] float32``.
            target: What is right, in the form of this head.
            weights: Of the classes, ``[classes] float32``.
            smoothing: Share of the target that is spread over all classes.
        """

    @abstractmethod
    def scores(self, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
        """Scores the logits of a split against what is right.

        All sums are in float64 on the CPU and don't depend on the number of threads: the same input gives the same
        bits. The order of the examples shows in the last bits only; callers who shard a split put it back in order.

        Args:
            logits: ``[examples, classes] float32``.
            labels: What is right, in the form of this head.
            classes: Names of the classes, each different.

        Raises:
            DataError: there are no examples, or logits are not finite.
        """

    @abstractmethod
    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gives ``[items, classes] float32``; a row of NaN stays one."""

    @abstractmethod
    def answer(self, probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int) -> Prediction:
        """The answer that an item's probabilities ``[classes]`` give, with up to ``top_k`` classes in it."""

    @abstractmethod
    def compared(self, scores: Scores) -> dict[str, float]:
        """The scores, by their names in a sentence, of which a format must keep nearly all; more is better."""

    @abstractmethod
    def agrees(self, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which examples get the same answer from both ``[examples, classes] float32``: ``[examples] bool``."""
