"""Presets for debugging: one quick pass, one batch learnt by heart, a profile."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment
from trainyard.data.records import Dataset

if TYPE_CHECKING:
    from trainyard.training.reports import StepReport, Validation

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)

DRY_RUN_STEPS = 3
OVERFIT_EPOCHS = 60
PROFILE_WAIT, PROFILE_WARMUP, PROFILE_STEPS = 3, 2, 5
"""Steps before the profiler is on, steps it warms up, steps it records."""
PROFILED_STEPS = PROFILE_WAIT + PROFILE_WARMUP + PROFILE_STEPS


def apply_preset(experiment: AnyExperiment) -> AnyExperiment:
    """The experiment as its preset wants it; its runs lie in a folder of their own, ``<name>-<preset>``."""
    preset = experiment.trainer.preset
    if preset == "none":
        return experiment
    data = experiment.data
    quick = {"max_epochs": 1, "log_every": 1, "save_every": None, "patience": None, "min_gain": None}
    trainer = experiment.trainer.model_copy(update=quick)
    if preset == "dry_run":
        data = data.model_copy(update={"limit": DRY_RUN_STEPS * _step_examples(experiment)})
    elif preset == "profile":
        data = data.model_copy(update={"limit": PROFILED_STEPS * _step_examples(experiment)})
    elif preset == "overfit_batch":
        trainer = trainer.model_copy(update={"max_epochs": OVERFIT_EPOCHS, "keep": "last"})
        experiment = experiment.without_regularisation()
    update = {"name": f"{experiment.name}-{preset}", "data": data, "trainer": trainer}
    return experiment.model_copy(update=update)


def _step_examples(experiment: Experiment) -> int:
    """Examples of an optimiser step, over all processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return experiment.data.batch_size * experiment.trainer.accumulate * processes


def apply_data_preset(experiment: Experiment, dataset: Dataset) -> Dataset:
    """The data as the preset wants them: ``overfit_batch`` trains and validates on one batch of the training split."""
    if experiment.trainer.preset != "overfit_batch":
        return dataset
    train = dataset.splits["train"]
    # Spread over the split, which is often sorted by class.
    count = min(experiment.data.batch_size, len(train))
    batch = train.select(np.linspace(0, len(train) - 1, count).astype(np.int64))
    return replace(dataset, splits={**dataset.splits, "train": batch, "val": batch})


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
        """Tells the profiler that a step is over.

        Raises:
            UsageError: there are too few steps for a trace.
        """
        if report.total_steps < PROFILED_STEPS:
            raise UsageError(
                f"trainer.preset=profile needs {PROFILED_STEPS} steps and these data give {report.total_steps}: "
                "choose a smaller data.batch_size"
            )
        self.profiler.step()

    def on_validation(self, validation: Validation) -> None:
        """Stops: validation isn't what is profiled."""
        self.profiler.stop()
