"""Your experiments, made small, on which the tests here run. One of your own is a line in ``EXPERIMENTS``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# What is yours is imported in the fixtures: the library's tests, in trainyard/, read this file and need none of it.
if TYPE_CHECKING:
    from trainyard.data.records import Dataset

    from my_project.train import Config

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = {
    "digits_resnet": ["data.image_size=8", "data.limit=600", "trainer.max_epochs=4"],
    "tickets_bert": ["data.limit=1000", "trainer.max_epochs=6", "model.vocab_size=1000", "model.dropout=0.1",
                     "optim.lr=3e-3"],
}  # fmt: skip
"""What makes each config of ``configs/`` a run of seconds. Its accuracy is bounded in ``test_end_to_end.py``."""
IN_A_TEST = ["trainer.devices=cpu", "trainer.threads=1", "trainer.loggers=[]"]


@pytest.fixture(scope="session", params=EXPERIMENTS)
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Each of them, in a folder of its own."""
    from trainyard.config.load import load_experiment

    from my_project.train import Config

    folder = tmp_path_factory.mktemp(request.param)
    places = [f"out={folder}/runs", f"data.cache={folder}/cache"]
    config = load_experiment(CONFIGS / f"{request.param}.yaml", [*EXPERIMENTS[request.param], *IN_A_TEST, *places])
    assert isinstance(config, Config)
    return config


@pytest.fixture(scope="session")
def dataset(experiment: Config) -> Dataset:
    """All of its examples, of which the run below sees a part."""
    from trainyard.data.load import load_dataset

    return load_dataset(experiment.data.model_copy(update={"limit": None}), experiment.seed)


@pytest.fixture(scope="session")
def trained(experiment: Config) -> Path:
    """The directory of its finished run; don't change it."""
    from my_project.train import train

    return train(experiment)
