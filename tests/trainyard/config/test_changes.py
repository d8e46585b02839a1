"""What a key changes: resume, nodes and evaluation go by it."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from trainyard.config.data import DATA_KINDS
from trainyard.config.experiment import Experiment
from trainyard.config.kinds import experiment_class
from trainyard.config.schema import json_schema
from trainyard.config.section import CHANGES, Section, changes, dotted_keys_that_change, keys_that_change

DATA = {"data.path", "data.cache"}
IMAGES = {"data.cache_gb", "data.workers"}
TRAINER = {f"trainer.{key}" for key in ("resume", "devices", "threads", "log_every", "loggers", "min_gain")}


@pytest.fixture(params=DATA_KINDS)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    model = {"images": {"kind": "cnn"}, "texts": {"kind": "encoder"}}[request.param]
    return experiment_class().model_validate(
        {"name": "x", "data": {"kind": request.param, "path": "x"}, "model": model}
    )


def test_a_run_may_go_on_with_other_values_of(experiment: Experiment) -> None:
    images = IMAGES if experiment.data.kind == "images" else set()

    found = dotted_keys_that_change(experiment, "nothing", "checkpoints")

    assert found == {"out", "data.cache", "report.samples", "trainer.save_every", *TRAINER, *images}


def test_a_node_may_have_values_of_its_own_of(experiment: Experiment) -> None:
    images = IMAGES if experiment.data.kind == "images" else set()

    assert dotted_keys_that_change(experiment, "nothing", "place") == {
        "out",
        "report.samples",
        *DATA,
        *TRAINER,
        *images,
    }


def test_evaluation_goes_by_the_keys_of_the_data() -> None:
    of = {kind: keys_that_change(section, "inputs") for kind, section in DATA_KINDS.items()}
    assert of == {"images": {"kind", "image_size", "resize", "max_pixels"}, "texts": {"kind", "max_length", "pair"}}

    same = {"path", "limit", "batch_size", "cache", "max_bad"}
    of = {kind: keys_that_change(section, "nothing", "place", "batches") for kind, section in DATA_KINDS.items()}
    assert of == {"images": {*same, "cache_gb", "workers"}, "texts": {*same, "bucket"}}


def test_a_key_of_ones_own_says_it_or_changes_the_weights() -> None:
    class Mine(Section):
        colour: str = "red"
        threads: Annotated[int, Field(ge=1), changes("nothing")] = 2

    class Whole(Section):
        mine: Mine = Mine()
        folder: Annotated[str, changes("nothing")] = ""

    assert dotted_keys_that_change(Whole(), "nothing") == {"mine.threads", "folder"}
    assert dotted_keys_that_change(Whole(), "weights") == {"mine.colour", "mine"}


def test_editors_are_told_in_words() -> None:
    definitions = json_schema()["$defs"]
    assert isinstance(definitions, dict)
    trainer = definitions["TrainerConfig"]["properties"]

    assert trainer["devices"]["description"].endswith(CHANGES["nothing"])
    assert trainer["precision"]["description"].endswith("weights stay float32.")
    assert "changes" not in trainer["devices"]
