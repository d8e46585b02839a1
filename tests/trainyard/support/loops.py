"""A training loop over made-up images and a network of two layers: a run takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainyard.config.experiment import Experiment
from trainyard.models.classifier import ImageClassifier
from trainyard.preprocess.base import Inputs
from trainyard.training.loop import TrainingLoop
from trainyard.training.processes import start_fabric
from trainyard.training.reports import Observer
from trainyard.training.task import TrainingTask

MakeLoop = Callable[..., TrainingLoop]
CLASSES = ("dark", "middle", "light")


class MadeUpImages:
    """Images of 4 x 4 pixels whose brightness tells their class, more or less."""

    lengths = None

    def __init__(self, count: int, seed: int, labels: Sequence[int] | None = None) -> None:
        generator = np.random.default_rng(seed)
        chosen = generator.integers(0, 3, count) if labels is None else np.array(labels)
        self.labels: NDArray[np.int64] = chosen.astype(np.int64)
        noise = generator.normal(0, 30, (count, 3, 4, 4))
        self.images = (60 + 70 * self.labels[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        return {"images": self.images[indices]}


def tiny_classifier(plain: bool) -> ImageClassifier:
    """With batch norm and dropout, or without."""
    torch.manual_seed(0)
    between = [] if plain else [nn.BatchNorm1d(8), nn.Dropout(0.2)]
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), *between, nn.ReLU(), nn.Linear(8, 3))
    return ImageClassifier(network, list(network), (0.5,) * 3, (0.25,) * 3)


MakeTask = Callable[[Experiment, ImageClassifier, NDArray[np.int64]], TrainingTask]


def loop_maker(folder: Path, config: type[Experiment], model: dict[str, str], make_task: MakeTask) -> MakeLoop:
    """A function that makes a project's loops; sections are overrides, as in ``make_loop(optim={"ema": 0.9})``."""

    def make(
        observers: Sequence[Observer] = (),
        labels: Sequence[int] | None = None,
        plain: bool = False,
        **sections: dict[str, object],
    ) -> TrainingLoop:
        tree = {
            "name": "tiny",
            "model": model,
            **sections,
            "data": {"kind": "images", "path": "-", "image_size": 4, "batch_size": 16, **sections.get("data", {})},
            "optim": {"lr": 0.1, **sections.get("optim", {})},
            "trainer": {"max_epochs": 2, "threads": 1, "devices": "cpu", **sections.get("trainer", {})},
        }
        experiment = config.model_validate(tree)
        train, val = MadeUpImages(100, seed=1, labels=labels), MadeUpImages(50, seed=2)
        task = make_task(experiment, tiny_classifier(plain), train.labels)
        fabric = start_fabric(experiment.trainer)
        return TrainingLoop(fabric, task, experiment, train, val, CLASSES, folder / "checkpoints", observers)

    return make
