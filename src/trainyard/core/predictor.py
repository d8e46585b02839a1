"""Answers lists of raw items from a bundle: what the command line and every server call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainyard.core.bundle import Bundle
from trainyard.core.eager import EagerRuntime
from trainyard.core.preprocess import Encoded, Item
from trainyard.errors import ItemError

Format = Literal["auto", "eager"]


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        label: The most probable class.
        probability: Its probability, calibrated on the validation split.
        top: The most probable classes with their probabilities, best first.
    """

    label: str
    probability: float
    top: list[tuple[str, float]]


class Predictor:
    """Turns raw items (image bytes or paths, texts, pairs of texts) into predictions.

    Args:
        bundle: A bundle or run folder, verified when it is opened; or one that is open already.
        format: Which of the model's formats runs; ``auto`` takes the best there is.
        device: A torch device for ``eager``; by default a GPU if there is one.
        batch_size: Most items that go through the model at once.
    """

    def __init__(
        self, bundle: Path | Bundle, format: Format = "auto", device: str | None = None, batch_size: int = 32
    ) -> None:
        assert format in ("auto", "eager")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.batch_size = batch_size
        self._runtime = EagerRuntime(self.bundle, device)

    def predict(self, items: Sequence[Item], top_k: int = 3) -> list[Prediction | ItemError]:
        """Answers each item; one that can't be read gets its error, and its neighbours their answers."""
        answers: list[Prediction | ItemError] = []
        for start in range(0, len(items), self.batch_size):
            answers.extend(self._predict_batch(items[start : start + self.batch_size], top_k))
        return answers

    def probabilities(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Gives ``[items, classes] float32``.

        Raises:
            ItemError: an item can't be read.
        """
        encoded = [self.bundle.preprocessor.encode(item) for item in items]
        rows = [self._forward(encoded[i : i + self.batch_size]) for i in range(0, len(encoded), self.batch_size)]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.bundle.labels)), np.float32)

    def _predict_batch(self, items: Sequence[Item], top_k: int) -> Iterator[Prediction | ItemError]:
        encoded = [self._encode(item) for item in items]
        good = [row for row in encoded if not isinstance(row, ItemError)]
        rows = iter(self._forward(good) if good else ())
        for row in encoded:
            yield row if isinstance(row, ItemError) else self._answer(next(rows), top_k)

    def _encode(self, item: Item) -> Encoded | ItemError:
        try:
            return self.bundle.preprocessor.encode(item)
        except ItemError as error:
            return error

    def _forward(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        logits = self._runtime.logits(self.bundle.preprocessor.collate(encoded)) / self.bundle.facts.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def _answer(self, probabilities: NDArray[np.float32], top_k: int) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[: max(1, top_k)]
        top = [(self.bundle.labels[i], float(probabilities[i])) for i in best]
        return Prediction(label=top[0][0], probability=top[0][1], top=top)
