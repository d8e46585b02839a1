"""What a run must remember to go on exactly where it was: checkpoints."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from trainyard.base.errors import TrainyardError
from trainyard.base.files import atomic_write

FORMAT = 1
LAST = "last.ckpt"
BEST = "best.ckpt"
FULL_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Assembled from all shards and in main memory, whatever the strategy: a checkpoint has one form."""


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        epoch: Epochs that are complete, validation included.
        batch: Batches of the current epoch that are complete, in each process.
        step: Optimiser steps so far.
        best: Best value of the monitored metric, signed so that more is better.
        best_epoch: The epoch (from 1) that it came from.
        waited: Epochs since then.
        examples: Training examples seen, over all processes.
        seconds: Time spent in training steps and their loading.
        order: Chained SHA-256 of the example ids that rank 0 trained on: two runs that saw the same examples in
            the same order have the same one.
        world_size: Processes; a run goes on with as many as it began with.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    examples: int = 0
    seconds: float = 0.0
    order: str = ""
    world_size: int = 1

    def saw(self, example_ids: NDArray[np.int64]) -> None:
        """Adds a batch to the record of what was seen."""
        self.batch += 1
        self.examples += len(example_ids) * self.world_size
        self.order = hashlib.sha256(self.order.encode() + example_ids.tobytes()).hexdigest()


class Checkpoint(TypedDict):
    """The content of a checkpoint file: tensors and plain values only, so that it loads with ``weights_only``."""

    format: int
    progress: dict[str, object]
    model: dict[str, Tensor]
    optimizer: dict[str, object]
    scaler: dict[str, object]
    average: dict[str, Tensor]


def full_weights(network: nn.Module) -> dict[str, Tensor]:
    """A network's state on the CPU, complete on rank 0; every process must call it."""
    return cast(dict[str, Tensor], get_model_state_dict(network, options=FULL_ON_CPU))


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its shard, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def take_checkpoint(
    network: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    scaler: dict[str, object],
    average: dict[str, Tensor],
) -> Checkpoint:
    """Collects the state; every process must call it, because a sharded model is assembled from all of them."""
    return Checkpoint(
        format=FORMAT,
        progress=asdict(progress),
        model=full_weights(network),
        optimizer=cast(dict[str, object], get_optimizer_state_dict(network, optimizer, options=FULL_ON_CPU)),
        scaler=scaler,
        average=average,
    )


def restore_checkpoint(checkpoint: Checkpoint, network: nn.Module, optimizer: Optimizer) -> Progress:
    """Puts a checkpoint's weights and optimiser state in place; returns where training stood.

    Raises:
        TrainyardError: the parameters are grouped otherwise now: torch would mix the groups up without a word.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = [sorted(names[id(parameter)] for parameter in group["params"]) for group in optimizer.param_groups]
    saved = cast("list[dict[str, list[str]]]", checkpoint["optimizer"]["param_groups"])
    if groups != [sorted(group["params"]) for group in saved]:
        raise TrainyardError(
            "the optimiser's groups of parameters have changed since this run's checkpoint was written; "
            "start a new run (trainer.resume=false)"
        )
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(network, dict(checkpoint["model"]), options=options)
    set_optimizer_state_dict(network, optimizer, checkpoint["optimizer"], options=options)  # type: ignore[arg-type]
    return Progress(**checkpoint["progress"])  # type: ignore[arg-type]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically: after a crash the file is the old one or the new one.

    Raises:
        TrainyardError: the disk is full, or the folder can't be written.
    """
    try:
        # A run has one writer, so these are of writers that were killed.
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink()
        with atomic_write(path) as file:
            torch.save(checkpoint, file)
    # torch reports a full disk as RuntimeError from its zip writer
    except (OSError, RuntimeError) as error:
        raise TrainyardError(f"the checkpoint {path} can't be written ({error}); the one before is kept") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; nothing in it is executed.

    Raises:
        TrainyardError: the file is damaged or of another format.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise TrainyardError(f"the checkpoint {path} can't be read: {error}") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        raise TrainyardError(f"{path} isn't a checkpoint of this version of trainyard")
    return cast(Checkpoint, checkpoint)
