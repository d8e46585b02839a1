"""Which examples a batch holds: a function of the seed and the epoch, with nothing to save or to replay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MEGA_BATCHES = 64
"""Global batches that are sorted by length together: more waste less padding, fewer mix examples better."""


def epoch_batches(
    count: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
    lengths: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> list[NDArray[np.int64]]:
    """This rank's batches of one training epoch; every rank has as many, all of ``batch_size``.

    Examples that don't fill a global batch are left out, others in each epoch; a split smaller than one global batch
    is repeated to fill it.

    Args:
        count: Examples of the split.
        batch_size: Examples of a batch of one rank.
        lengths: ``[count]``; batches are then of examples of similar length, on all ranks alike.
        weights: ``[count]``; examples are then drawn with replacement, in proportion.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count) if weights is None else rng.choice(count, size=count, p=weights / weights.sum())
    global_size = batch_size * world_size
    steps = max(1, count // global_size)
    order = np.resize(order, steps * global_size)
    if lengths is not None:
        order = _bucketed(order, lengths, global_size, rng)
    # Every world_size-th example of a sorted global batch: ranks get similar lengths and finish together.
    return list(np.ascontiguousarray(order.reshape(steps, batch_size, world_size)[:, :, rank]))


def eval_batches(
    count: int, batch_size: int, *, rank: int = 0, world_size: int = 1, lengths: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """This rank's batches for an evaluation that sees each example exactly once over all ranks.

    Every rank has as many batches. A filler is -1, at the end of a batch.

    Args:
        lengths: ``[count]``; the examples are then sorted, longest first, so that what doesn't fit fails at once.
    """
    order = np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")
    steps = -(-count // (batch_size * world_size))
    filled = np.full(steps * batch_size * world_size, -1, dtype=np.int64)
    filled[:count] = order
    return list(np.ascontiguousarray(filled.reshape(steps, batch_size, world_size)[:, :, rank]))


def balancing_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight of each example, ``[examples]``, that makes all classes equally likely to be drawn."""
    counts = np.bincount(labels)
    weights: NDArray[np.float64] = 1.0 / counts[labels]
    return weights


def _bucketed(
    order: NDArray[np.int64], lengths: NDArray[np.int64], global_size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sorts runs of ``MEGA_BATCHES`` global batches by length (ties stay shuffled), then shuffles the batches."""
    mega = MEGA_BATCHES * global_size
    runs = [order[start : start + mega] for start in range(0, len(order), mega)]
    by_length = np.concatenate([run[np.argsort(lengths[run], kind="stable")] for run in runs])
    batches = by_length.reshape(-1, global_size)
    return batches[rng.permutation(len(batches))].reshape(-1)
