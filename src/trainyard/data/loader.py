"""From lists of indices to batches of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainyard.data.encoded import EncodedSplit
from trainyard.data.threads import ordered_map


@dataclass(frozen=True)
class Batch:
    """A batch as training and evaluation take it.

    Attributes:
        inputs: The model's inputs by argument name.
        labels: ``[batch] int64``.
        indices: ``[batch] int64``, each example's place in its split; -1 is a filler, whose inputs and label are
            those of example 0 and count for nothing.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> Batch:
        """Moves inputs and labels, without waiting for a GPU; the indices stay on the CPU."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True), self.indices)


@dataclass(frozen=True)
class BatchLoader:
    """Iterates over given batches, as often as wanted; see ``make_loader``."""

    split: EncodedSplit
    batches: Sequence[NDArray[np.int64]]
    workers: int
    pin_memory: bool

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.workers == 0:
            return map(self._load, self.batches)
        return ordered_map(self._load, self.batches, threads=self.workers)

    def _load(self, indices: NDArray[np.int64]) -> Batch:
        chosen = np.maximum(indices, 0)
        inputs = {name: torch.from_numpy(values) for name, values in self.split.batch(chosen).items()}
        batch = Batch(inputs, torch.from_numpy(self.split.labels[chosen]), torch.from_numpy(indices))
        return _pinned(batch) if self.pin_memory else batch


def make_loader(
    split: EncodedSplit, batches: Sequence[NDArray[np.int64]], workers: int = 0, pin_memory: bool = False
) -> BatchLoader:
    """Loads the batches in their order; to start in the middle of an epoch, pass those that are left.

    Args:
        workers: Threads that prepare batches ahead; with 0 each is prepared when it is asked for. The batches are the
            same for any number.
        pin_memory: Put tensors where a GPU can fetch them while it works.
    """
    return BatchLoader(split, batches, workers, pin_memory)


def _pinned(batch: Batch) -> Batch:
    inputs = {name: tensor.pin_memory() for name, tensor in batch.inputs.items()}
    return Batch(inputs, batch.labels.pin_memory(), batch.indices.pin_memory())
