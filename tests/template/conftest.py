"""Tests of the owner's files as they are shipped: the first rename takes them away, for he changes those files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from my_project.train import Config, train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks them, so that ``-m "not template"`` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("template")


@pytest.fixture(autouse=True)
def no_inherited_tracking() -> None:
    """MLflow exports where it tracks, so that a test's processes would log into another test's folder."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def digits(folder: Path, **sections: dict[str, object]) -> Config:
    """A run on a few digits that takes a second; the sections are overrides."""
    data = {"kind": "images", "path": "embedded:digits", "image_size": 8, "batch_size": 16, "limit": 64}
    trainer = {"max_epochs": 2, "devices": "cpu", "threads": 1, "log_every": 1, "loggers": []}
    return Config.model_validate(
        {
            "name": "digits",
            "out": folder / "runs",
            "data": {**data, "cache": str(folder / "cache"), **sections.get("data", {})},
            "model": {"kind": "resnet", "name": "resnet20", **sections.get("model", {})},
            "augment": sections.get("augment", {}),
            "optim": {"lr": 0.05, **sections.get("optim", {})},
            "trainer": {**trainer, **sections.get("trainer", {})},
        }
    )


@pytest.fixture
def digits_experiment(tmp_path: Path) -> Callable[..., Config]:
    """Makes such an experiment in the test's own folder, as in ``digits_experiment(optim={"lr": 0.1})``."""
    return partial(digits, tmp_path)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs with four steps each; don't change it."""
    return train(digits(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="session")
def exported_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-20 that reads digits and has an ONNX export; don't change it."""
    from trainyard.artifacts.bundle import Bundle
    from trainyard.verify.export import Options, export

    config = digits(tmp_path_factory.mktemp("exported"), data={"limit": 600}, trainer={"max_epochs": 6})
    run = train(config)
    export(Bundle.open(run), Options(("onnx",), threads=1), [])
    return run
