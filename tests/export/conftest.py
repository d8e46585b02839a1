"""Small trained models to export: an image model that is good enough for the gate, and a text model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainyard.config.experiment import Experiment
from trainyard.core.bundle import Bundle
from trainyard.core.samples import calibration_samples
from trainyard.export.source import Source, load_source

TRAINER = {"devices": "cpu", "threads": 1, "loggers": [], "log_every": 1000}


def train(folder: Path, **sections: object) -> Path:
    from trainyard.training.run import train as run_training

    experiment = {"name": "model", "out": folder / "runs", "trainer": {"max_epochs": 6, **TRAINER}, **sections}
    return run_training(Experiment.model_validate(experiment))


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-20 that reads digits; don't change it."""
    folder = tmp_path_factory.mktemp("images")
    data = {"kind": "images", "path": "embedded:digits", "image_size": 8, "limit": 600, "cache": str(folder / "cache")}
    return train(folder, data=data, model={"kind": "resnet", "name": "resnet20"}, optim={"lr": 0.1})


@pytest.fixture(scope="session")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that reads tickets; don't change it."""
    folder = tmp_path_factory.mktemp("texts")
    data = {"kind": "texts", "path": "embedded:tickets", "limit": 600, "max_length": 64, "cache": str(folder / "cache")}
    model = {"kind": "bert", "hidden_size": 64, "layers": 2, "heads": 2, "vocab_size": 2000}
    return train(folder, data=data, model=model, optim={"name": "adamw", "lr": 1e-3})


def source_of(run: Path) -> Source:
    bundle = Bundle.open(run)
    return load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)])


@pytest.fixture(scope="session")
def image_source(image_run: Path) -> Source:
    """The model of ``image_run``."""
    return source_of(image_run)


@pytest.fixture(scope="session")
def text_source(text_run: Path) -> Source:
    """The model of ``text_run``."""
    return source_of(text_run)


@pytest.fixture
def copied_run(image_run: Path, tmp_path: Path) -> Path:
    """A copy of ``image_run``'s bundle in a run folder of the test's own."""
    run = tmp_path / "run"
    shutil.copytree(image_run / "bundle", run / "bundle")
    return run


@pytest.fixture(scope="session")
def source_from() -> Callable[[Path], Source]:
    """Loads the model of a run."""
    return source_of
