"""A config's data and model, trained in two ways: by the loop behind ``trainyard train``, and by a bare loop."""

from __future__ import annotations

import csv
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from measure import CONFIGS
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from trainyard.base.project import require_project
from trainyard.config.experiment import Experiment
from trainyard.config.load import load_experiment
from trainyard.data.encoded import EncodedSplit, encode_split
from trainyard.data.load import load_dataset
from trainyard.data.loader import Batch, make_loader
from trainyard.data.records import Dataset, Split
from trainyard.data.sampling import epoch_batches
from trainyard.models.base import Task
from trainyard.preprocess.base import Preprocessor
from trainyard.training.processes import start_fabric
from trainyard.training.run import Run, build_model
from trainyard.training.task import TrainingTask

WAYS: tuple[tuple[Split, bool], ...] = (("train", True), ("train", False), ("val", False))
"""Split, and whether it is for training."""


@dataclass(frozen=True)
class Workload:
    """A config with its data, ready to train.

    Attributes:
        train: The training split as the loop takes it, with the margin for random crops.
        bare: The same without that margin: what a bare loop feeds to the model.
        val: The validation split.
    """

    experiment: Experiment
    dataset: Dataset
    task: Task
    train: EncodedSplit
    bare: EncodedSplit
    val: EncodedSplit

    def training_task(self) -> TrainingTask:
        """The config's model with fresh weights, always the same, and what the project has it learn by."""
        project = require_project()
        make_task = cast("Callable[..., TrainingTask]", project.resolve(".train:make_task"))
        model = build_model(self.experiment, self.task.labels, self.task.preprocessor)
        return make_task(self.experiment, model, self.train.labels, len(self.task.labels))

    def batches(self) -> list[Batch]:
        """The batches of the loop's first epoch, in memory."""
        data = self.experiment.data
        lengths = self.bare.lengths if getattr(data, "bucket", False) else None
        indices = epoch_batches(len(self.bare), data.batch_size, seed=self.experiment.seed, epoch=0, lengths=lengths)
        return list(make_loader(self.bare, indices))


def load_workload(config: str, *overrides: str) -> Workload:
    """Reads a shipped config and its data."""
    experiment = load_experiment(CONFIGS / f"{config}.yaml", overrides)
    dataset = load_dataset(experiment.data, experiment.seed)
    preprocessor = experiment.model.preprocessor(experiment.data, dataset.splits["train"].items)
    return make_workload(experiment, dataset, preprocessor)


def make_workload(experiment: Experiment, dataset: Dataset, preprocessor: Preprocessor) -> Workload:
    """Encodes the splits of data that is there already."""
    train, bare, val = (
        encode_split(dataset.splits[split], preprocessor, experiment.data, training) for split, training in WAYS
    )
    return Workload(experiment, dataset, Task(dataset.classes, preprocessor), train, bare, val)


@dataclass(frozen=True)
class Trained:
    """What a training run took.

    Attributes:
        examples_per_second: Of the training steps; without the first epoch, if there was more than one.
        step_seconds: Of one training step, likewise.
        epoch_seconds: Of what comes to an epoch's steps: batches drawn, validation, checkpoint, logging.
    """

    examples_per_second: float
    step_seconds: float
    epoch_seconds: float


def train_by_loop(workload: Workload, task: TrainingTask) -> Trained:
    """Trains as ``trainyard train`` does, with its checkpoints and loggers, into the config's run folder."""
    experiment, dataset = workload.experiment, workload.dataset
    fabric = start_fabric(experiment.trainer)
    run = Run(fabric, experiment)
    with run.opened(dataset, workload.task.preprocessor):
        began = time.perf_counter()
        loop = run.fit(task, workload.train, workload.val)
        elapsed = time.perf_counter() - began
    epochs = loop.progress.epoch
    examples = loop.batches_per_epoch * experiment.data.batch_size
    seconds = _seconds_after_epochs(run.folder, examples)
    steady = (seconds[-1] - seconds[0]) / (epochs - 1) if epochs > 1 else seconds[0]
    return Trained(examples / steady, steady / loop.steps_per_epoch, (elapsed - loop.progress.seconds) / epochs)


def _seconds_after_epochs(run: Path, examples: int) -> list[float]:
    """Seconds of training up to the end of each epoch, from the cumulative examples/s in ``metrics.csv``."""
    rows = list(csv.DictReader((run / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    return [(i + 1) * examples / float(row["examples_per_second"]) for i, row in enumerate(rows)]


def bare_optimizer(model: nn.Module, name: str) -> Optimizer:
    """Plain torch's, with one kernel for all parameters, so that the bare loop is as fast as it can be."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def train_bare(model: nn.Module, batches: Iterable[Batch], optimizer: Optimizer, precision: str = "32") -> float:
    """Forward, loss, backward and step for each batch, and nothing else; returns the seconds."""
    device = next(model.parameters()).device
    model.train()
    synchronize(device)
    began = time.perf_counter()
    for batch in batches:
        on_device = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits: Tensor = model(**on_device.inputs)
            loss = functional.cross_entropy(logits, on_device.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits for a GPU to be done, so that the clock tells of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def quiet_folder() -> Iterator[Path]:
    """A folder for runs that is gone afterwards; the runs' own lines aren't shown meanwhile."""
    ours = logging.getLogger("trainyard")
    level = ours.level
    ours.setLevel(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        ours.setLevel(level)
