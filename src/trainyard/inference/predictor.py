"""Answers lists of raw items from a bundle: what the command line and every server call."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import LATEST, FormatName, Opened, open_trusted
from trainyard.base.errors import ItemError, OutputError
from trainyard.heads.base import Prediction
from trainyard.heads.table import head_of
from trainyard.inference.selection import choose, sample_inputs
from trainyard.preprocess.base import Encoded, Item

log = logging.getLogger(__name__)
T = TypeVar("T")

WINDOW = 16
"""Batches that are encoded at once: texts of like length share one, so that short ones aren't padded to the longest."""


class Deployed(NamedTuple):
    """What answers, as every answer can say: the bundle's digest, the export's id (``eager`` has none), the format."""

    bundle: str
    export: str | None
    format: FormatName


@dataclass
class Trace:
    """What a call of ``score`` finds out by the way.

    Attributes:
        model_seconds: In which the model ran.
        measures: Of each item, what its preprocessor measured, by name; nothing of one that can't be encoded.
    """

    model_seconds: float = 0.0
    measures: list[dict[str, float]] = field(default_factory=list)


class Predictor:
    """Turns raw items (image bytes or paths, texts, pairs of texts) into predictions.

    Args:
        bundle: A bundle or run folder, verified when it is opened; or one that is open already, also with its export.
        format: Which of the model's formats runs; ``auto`` takes the fastest that passed and can run here.
        device: A torch device; by default a GPU if there is one for ``eager``, otherwise the CPU.
        batch_size: Most items that go through the model at once.
        threads: Of one call; by default the library's own number. Torch's are the whole process's.
        export: Id of the export whose formats may run; by default the newest.
        expect: Digest that the bundle, or the export whose format runs, must have; see ``open_trusted``.
        warm_up: Makes a first call with one of the bundle's samples, so that no caller has to wait for it.

    Attributes:
        bundle: The bundle.
        format: Which runs.
        deployed: What runs, in full.

    Raises:
        UsageError: there is no bundle or no such format, it can't run here, or ``expect`` is malformed.
        BundleError: something was changed, or isn't what was expected.
    """

    def __init__(
        self,
        bundle: Path | Bundle | Opened,
        format: FormatName = "auto",
        device: str | None = None,
        batch_size: int = 32,
        threads: int | None = None,
        export: str = LATEST,
        expect: str | None = None,
        warm_up: bool = True,
    ) -> None:
        opened = bundle if isinstance(bundle, Opened) else open_trusted(bundle, format, export, expect)
        self.bundle = opened.bundle
        self._head = head_of(opened.bundle)
        self.batch_size = batch_size
        self.format, self._runtime = choose(opened, format, device, threads, batch_size)
        id = opened.export.facts.id if opened.export and self.format != "eager" else None
        self.deployed = Deployed(self.bundle.digest, id, self.format)
        log.info("%s answers%s", self.format, f", of the export {id}" if id else "")
        if warm_up and (inputs := sample_inputs(self.bundle, 1)):
            self._runtime.logits(inputs)

    def predict(self, items: Sequence[Item], top_k: int = 3) -> list[Prediction | ItemError]:
        """Answers each item; one that can't be read gets its error, and its neighbours their answers."""
        return list(self.stream(items, top_k))

    def stream(self, items: Iterable[Item], top_k: int = 3) -> Iterator[Prediction | ItemError]:
        """Answers as ``predict`` does, in order, holding ``WINDOW`` batches of items at a time."""
        for scores in self._scores(items):
            yield scores if isinstance(scores, ItemError) else self.best(scores, top_k)

    def score(self, items: Sequence[Item], trace: Trace | None = None) -> list[NDArray[np.float32] | ItemError]:
        """Gives each item's probabilities ``[classes] float32`` in the order of the labels, or its error.

        What it finds out by the way is noted in ``trace``.
        """
        return list(self._scores(items, trace))

    def best(self, probabilities: NDArray[np.float32], top_k: int = 3) -> Prediction:
        """The answer that an item's probabilities ``[classes]`` give."""
        answer = self._head.answer(probabilities, self.bundle.labels, top_k)
        if (certainty := self.bundle.facts.certainty) is None:
            return answer
        return replace(answer, uncertain=certainty.is_uncertain(answer.probability))

    def probabilities(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Gives ``[items, classes] float32``.

        Raises:
            ItemError: an item can't be read or has no answer; says which, by its path or its position.
        """
        rows = np.empty((len(items), len(self.bundle.labels)), np.float32)
        for position, (item, scores) in enumerate(zip(items, self._scores(items), strict=True)):
            if isinstance(scores, ItemError):
                name = item if isinstance(item, Path) else f"items[{position}]"
                raise type(scores)(f"{name}: {scores}") from scores
            rows[position] = scores
        return rows

    def _scores(self, items: Iterable[Item], trace: Trace | None = None) -> Iterator[NDArray[np.float32] | ItemError]:
        measure = self.bundle.preprocessor.measures
        for window in self._windows(items):
            encoded = [self._encode(item) for item in window]
            began = time.perf_counter()
            rows = iter(self._forward_sorted([row for row in encoded if not isinstance(row, ItemError)]))
            if trace:
                trace.model_seconds += time.perf_counter() - began
                trace.measures += [{} if isinstance(row, ItemError) else measure(row) for row in encoded]
            for row in encoded:
                yield row if isinstance(row, ItemError) else _finite(next(rows))

    def _windows(self, items: Iterable[T]) -> Iterator[list[T]]:
        rest = iter(items)
        while window := list(islice(rest, WINDOW * self.batch_size)):
            yield window

    def _encode(self, item: Item) -> Encoded | ItemError:
        try:
            return self.bundle.preprocessor.encode(item)
        except ItemError as error:
            return error

    def _forward_sorted(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        """Gives ``[items, classes] float32`` in the order of the items, which go through the model by length."""
        order = sorted(range(len(encoded)), key=lambda i: encoded[i].shape[-1])  # stable: images stay as they are
        rows = np.empty((len(encoded), len(self.bundle.labels)), np.float32)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            rows[chosen] = self._forward([encoded[i] for i in chosen])
        return rows

    def _forward(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        """Gives ``[items, classes] float32``; the row of an item whose logits aren't finite holds NaN."""
        logits = self._runtime.logits(self.bundle.preprocessor.collate(encoded)) / self.bundle.facts.temperature
        logits[~np.isfinite(logits).all(axis=1)] = np.nan
        return self._head.probabilities(logits)


def _finite(probabilities: NDArray[np.float32]) -> NDArray[np.float32] | OutputError:
    if np.isnan(probabilities).any():
        return OutputError("the model's output for this item isn't finite")
    return probabilities
