"""Presets for debugging: one quick pass, one batch learnt by heart, a profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.config.data import ImagesConfig
from trainyard.config.experiment import Experiment
from trainyard.core.preprocess import Inputs
from trainyard.data.encoded import EncodedSplit

if TYPE_CHECKING:
    from trainyard.training.reports import StepReport, Validation

DRY_RUN_BATCHES = 3
OVERFIT_EPOCHS = 60
PROFILE_BATCHES = 20
PROFILE_WAIT, PROFILE_WARMUP, PROFILE_STEPS = 3, 2, 5
"""Steps before the profiler is on, steps it warms up, steps it records."""


def apply_preset(experiment: Experiment) -> Experiment:
    """The experiment as its preset wants it; its runs lie in a folder of their own, ``<name>-<preset>``."""
    preset = experiment.trainer.preset
    if preset == "none":
        return experiment
    data = experiment.data
    trainer = experiment.trainer.model_copy(update={"max_epochs": 1, "log_every": 1, "save_every": None})
    if preset == "dry_run":
        data = data.model_copy(update={"limit": DRY_RUN_BATCHES * data.batch_size})
    elif preset == "profile":
        data = data.model_copy(update={"limit": PROFILE_BATCHES * data.batch_size})
    elif preset == "overfit_batch":
        trainer = trainer.model_copy(update={"max_epochs": OVERFIT_EPOCHS, "keep": "last"})
        if isinstance(data, ImagesConfig):
            data = data.model_copy(update={"augment": "none", "mixup": 0.0, "cutmix": 0.0})
    update = {"name": f"{experiment.name}-{preset}", "data": data, "trainer": trainer}
    return experiment.model_copy(update=update)


class FirstExamples:
    """The first examples of a split, as a split.

    Args:
        split: The whole split.
        count: Examples that are kept.
    """

    def __init__(self, split: EncodedSplit, count: int) -> None:
        self.split = split
        self.labels: NDArray[np.int64] = split.labels[:count]
        self.lengths = None if split.lengths is None else split.lengths[:count]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        """Model inputs of these examples."""
        return self.split.batch(indices)


class Profiler:
    """Writes a trace of a few steps that TensorBoard and Perfetto open.

    Args:
        folder: Where the trace goes.
    """

    def __init__(self, folder: Path) -> None:
        from torch import profiler

        folder.mkdir(parents=True, exist_ok=True)
        self.profiler = profiler.profile(
            schedule=profiler.schedule(
                skip_first=PROFILE_WAIT, wait=0, warmup=PROFILE_WARMUP, active=PROFILE_STEPS, repeat=1
            ),
            on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
            record_shapes=True,
        )
        self.profiler.start()

    def on_step(self, report: StepReport) -> None:
        """Tells the profiler that a step is over."""
        self.profiler.step()

    def on_validation(self, validation: Validation) -> None:
        """Stops: validation isn't what is profiled."""
        self.profiler.stop()
