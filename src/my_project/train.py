"""Start here: what a config file may say, and what ``trainyard train`` does with it, step by step.

Each step that you want to be another is a line below. What is behind them and need not be read, from checkpoints and
many processes to the sealed bundle, is the library's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from trainyard.config.experiment import Experiment
from trainyard.data.encoded import encode_split
from trainyard.models.classifier import Classifier
from trainyard.training.distil import distilled
from trainyard.training.preflight import preflight
from trainyard.training.presets import apply_preset
from trainyard.training.processes import start_fabric
from trainyard.training.run import Run, build_model

from .augment import AugmentConfig
from .task import OptimConfig, Task, class_weights


class Config(Experiment):
    """A config file."""

    # The sections name, seed, out, data, model, trainer and bundle are the library's; these two are yours. A new one is
    # a class like theirs and a line here: it is then checked, documented by `trainyard config --schema`, and saved with
    # every run.
    optim: OptimConfig = OptimConfig()
    """How the weights are updated."""
    augment: AugmentConfig = AugmentConfig()
    """What is done to training images."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self.optim.check_strategy(self.trainer.strategy)
        self.augment.check_data(self.data)
        if self.optim.distil and self.data.kind != "texts":
            raise ValueError("optim.distil is for texts: with data.kind=images, leave it out")
        return self

    def without_regularisation(self) -> Self:
        """As `trainer.preset=overfit_batch` wants it: with any of these, no batch can be learnt by heart."""
        optim = self.optim.model_copy(update={"label_smoothing": 0.0, "distil": 0.0})
        augment = self.augment.model_copy(update={"kind": "none", "mixup": 0.0, "cutmix": 0.0})
        return self.model_copy(update={"optim": optim, "augment": augment})


def train(config: Config) -> Path:
    """Trains, evaluates and seals; returns the run directory.

    Raises:
        UsageError: the config doesn't fit this machine, the data or the model.
        DataError: the data can't be used.
        TrainyardError: training failed; the last good checkpoint is kept.
    """
    config = apply_preset(config)
    # What can't work is refused now, and not after an hour.
    preflight(config)
    # With many processes, each of them runs this function from here on, on a share of every batch.
    fabric = start_fabric(config.trainer)
    run = Run(fabric, config)

    dataset = run.load_data()
    # Raw items become tensors by one object, which is sealed with the model: a server prepares its inputs as you did.
    preprocessor = config.model.preprocessor(config.data, dataset.splits["train"].items)
    train_split = encode_split(dataset.splits["train"], preprocessor, config.data, training=True)
    val_split = encode_split(dataset.splits["val"], preprocessor, config.data, training=False)

    model = build_model(config, dataset.classes, preprocessor)
    # In place of the labels alone, where optim.distil asks for it.
    targets = distilled(dataset.splits["train"], len(dataset.classes), config.optim.distil)
    task = make_task(config, model, train_split.labels, len(dataset.classes), targets)

    # No run is lost at its end: a copy of the model takes one step, is sealed, opened and asked, in a second or two.
    run.rehearse(dataset, preprocessor, task, train_split, val_split)
    with run.opened(dataset, preprocessor):
        loop = run.fit(task, train_split, val_split)
        # The test split is scored here, by the code with which anyone scores the bundle again.
        run.finish(loop)
    return run.folder


def make_task(
    config: Config, model: Classifier, labels: NDArray[np.int64], classes: int, targets: Tensor | None = None
) -> Task:
    """The model with its loss, optimiser and augmentation; ``labels`` and ``targets`` are of the training split."""
    augmentation = config.augment.build(config.data, config.seed)
    return Task(model, config.optim, augmentation, class_weights(config.optim, labels, classes), targets)
