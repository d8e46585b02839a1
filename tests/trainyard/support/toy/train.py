"""The run, and what it learns by: cross entropy, at a rate that falls to zero."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from trainyard.config.experiment import Experiment
from trainyard.config.section import Section
from trainyard.data.encoded import encode_split
from trainyard.data.loader import Batch
from trainyard.models.classifier import Classifier
from trainyard.training.preflight import preflight
from trainyard.training.processes import start_fabric
from trainyard.training.run import Run, build_model
from trainyard.training.task import TrainingTask


class OptimConfig(Section):
    name: Literal["sgd", "adamw"] = "sgd"
    """Which optimiser."""
    lr: float = Field(default=0.1, gt=0)
    """Rate at the start."""
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the weights' average."""


class Config(Experiment):
    optim: OptimConfig = OptimConfig()
    """How the weights are updated."""


class Task(TrainingTask):
    def __init__(self, model: Classifier, optim: OptimConfig) -> None:
        super().__init__(model)
        self.optim, self.clip, self.ema = optim, optim.clip, optim.ema

    def training_loss(self, batch: Batch, epoch: int) -> Tensor:
        return functional.cross_entropy(self(**batch.inputs), batch.labels)

    def optimizer(self) -> Optimizer:
        groups = [{"params": [*self.model.parameters()], "peak_lr": self.optim.lr}]
        return AdamW(groups, self.optim.lr) if self.optim.name == "adamw" else SGD(groups, self.optim.lr, momentum=0.9)

    def schedule(self, step: int, total_steps: int) -> float:
        return 1 - step / total_steps


def train(config: Config) -> Path:
    preflight(config)
    run = Run(start_fabric(config.trainer), config)
    dataset = run.load_data()
    splits, data = dataset.splits, config.data
    preprocessor = config.model.preprocessor(data, splits["train"].items)
    examples = [encode_split(splits[name], preprocessor, data, name == "train") for name in ("train", "val")]
    task = Task(build_model(config, dataset.classes, preprocessor), config.optim)
    run.rehearse(dataset, preprocessor, task, *examples)
    with run.opened(dataset, preprocessor):
        run.finish(run.fit(task, *examples))
    return run.folder
