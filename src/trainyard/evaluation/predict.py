"""Logits of a whole split, each example exactly once, over any number of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, distributed

from trainyard.data.encoded import EncodedSplit
from trainyard.data.loader import make_loader
from trainyard.data.sampling import eval_batches

Forward = Callable[[dict[str, Tensor]], Tensor]
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def predict_split(
    forward: Forward, split: EncodedSplit, *, batch_size: int, device: torch.device, workers: int = 0
) -> Tensor:
    """Runs ``forward`` over this process's share of a split and gathers all shares.

    Every process makes the same number of calls, because a sharded or buffer-syncing model talks to its peers in each.

    Args:
        forward: Maps a batch's inputs on ``device`` to logits ``[batch, classes]``.
        split: The examples.
        batch_size: Examples of a call.
        device: Where the model is.
        workers: Threads that prepare batches ahead; see ``make_loader``.

    Returns:
        ``[examples, classes] float32`` on the CPU, in the split's order, the same in every process.
    """
    rank, world_size = place()
    batches = eval_batches(len(split), batch_size, rank=rank, world_size=world_size, lengths=split.lengths)
    rows: list[Tensor] = []
    for batch in make_loader(split, batches, workers=workers):
        with torch.no_grad():
            logits = forward({name: tensor.to(device) for name, tensor in batch.inputs.items()})
        rows.append(logits.float().cpu()[batch.indices >= 0])
    indices = torch.cat([torch.from_numpy(batch[batch >= 0]) for batch in batches])
    return _gather(indices, torch.cat(rows), len(split))


def place() -> tuple[int, int]:
    """This process's rank, and how many processes work together with it; see ``alone``."""
    if not _ALONE.get() and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within it, a process of a job works as if it were the only one: what fails in it leaves no other waiting."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def _gather(indices: Tensor, logits: Tensor, count: int) -> Tensor:
    """Puts the rows of all processes into the split's order."""
    _, world_size = place()
    parts: list[tuple[Tensor, Tensor]] = [(indices, logits)]
    if world_size > 1:
        gathered: list[tuple[Tensor, Tensor] | None] = [None] * world_size
        distributed.all_gather_object(gathered, (indices, logits))
        parts = [part for part in gathered if part is not None]
    ordered = torch.empty(count, logits.shape[1])
    seen = torch.zeros(count, dtype=torch.int64)
    for part_indices, part_logits in parts:
        ordered[part_indices] = part_logits
        seen[part_indices] += 1
    assert bool((seen == 1).all()), "each example is counted exactly once"
    return ordered
