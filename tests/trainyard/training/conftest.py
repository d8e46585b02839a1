"""A training loop over made-up images and a network of two layers: a run takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from trainyard.models.classifier import ImageClassifier
from trainyard.preprocess.preprocessor import Inputs
from trainyard.training.loop import TrainingLoop
from trainyard.training.processes import start_fabric
from trainyard.training.reports import Observer

from my_project.train import Config, make_task

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


def experiment(**sections: dict[str, object]) -> Config:
    return Config.model_validate(
        {
            "name": "tiny",
            "data": {
                "kind": "images",
                "path": "made-up",
                "image_size": 4,
                "batch_size": 16,
                **sections.get("data", {}),
            },
            "model": {"kind": "resnet", "name": "resnet20"},
            "augment": sections.get("augment", {}),
            "optim": {"lr": 0.1, **sections.get("optim", {})},
            "trainer": {"max_epochs": 2, "threads": 1, "devices": "cpu", **sections.get("trainer", {})},
        }
    )


MakeLoop = Callable[..., TrainingLoop]


@pytest.fixture
def make_loop(tmp_path: Path) -> MakeLoop:
    """Makes a loop; the sections are overrides, as in ``make_loop(optim={"ema": 0.9})``."""

    def make(
        observers: Sequence[Observer] = (),
        labels: Sequence[int] | None = None,
        plain: bool = False,
        **sections: dict[str, object],
    ) -> TrainingLoop:
        config = experiment(**sections)
        train, val = MadeUpImages(100, seed=1, labels=labels), MadeUpImages(50, seed=2)
        task = make_task(config, tiny_classifier(plain), train.labels, len(CLASSES))
        fabric = start_fabric(config.trainer)
        folder = tmp_path / "checkpoints"
        return TrainingLoop(fabric, task, config, train, val, CLASSES, folder, observers)

    return make
