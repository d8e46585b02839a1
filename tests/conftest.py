"""One small training that many tests look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from trainyard.config.experiment import Experiment

# No test asserts a time, and a loaded machine is slow.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def digits(folder: Path, **sections: dict[str, object]) -> Experiment:
    """A run on a few digits that takes a second; the sections are overrides."""
    return Experiment.model_validate(
        {
            "name": "digits",
            "out": folder / "runs",
            "data": {
                "kind": "images",
                "path": "embedded:digits",
                "image_size": 8,
                "batch_size": 16,
                "limit": 64,
                "cache": str(folder / "cache"),
                **sections.get("data", {}),
            },
            "model": {"kind": "resnet", "name": "resnet20", **sections.get("model", {})},
            "optim": {"lr": 0.05, **sections.get("optim", {})},
            "trainer": {
                "max_epochs": 2,
                "devices": "cpu",
                "threads": 1,
                "log_every": 1,
                "loggers": [],
                **sections.get("trainer", {}),
            },
        }
    )


@pytest.fixture(autouse=True)
def no_inherited_tracking() -> None:
    """MLflow exports where it tracks, so that a test's processes would log into another test's folder."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def digits_experiment(tmp_path: Path) -> Callable[..., Experiment]:
    """Makes such an experiment in the test's own folder, as in ``digits_experiment(optim={"lr": 0.1})``."""
    return partial(digits, tmp_path)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs with four steps each, tracked by TensorBoard and MLflow; don't change it."""
    from trainyard.training.run import train

    return train(digits(tmp_path_factory.mktemp("digits"), trainer={"loggers": ["tensorboard", "mlflow"]}))
