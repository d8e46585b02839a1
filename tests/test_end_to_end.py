"""From a config to answers: train, score again, export, predict. What your configs promise is bounded here."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainyard import Predictor
from trainyard.artifacts.bundle import Bundle
from trainyard.data.records import Dataset
from trainyard.evaluation.evaluate import evaluate
from trainyard.verify.export import Options, export

from my_project.train import Config

LEAST_ACCURACY = {"digits_resnet": 0.7, "tickets_bert": 0.5}
"""Of the small runs; what the whole ones reach is another matter."""


def test_its_loss_falls(trained: Path) -> None:
    rows = csv.DictReader((trained / "metrics.csv").read_text().splitlines())
    losses = [float(row["train_loss"]) for row in rows]

    assert losses[-1] < 0.8 * losses[0]


def test_it_is_good_enough(trained: Path, experiment: Config) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())

    assert metrics["test"]["accuracy"] > LEAST_ACCURACY[experiment.name]


def test_scored_again_it_is_the_same(trained: Path) -> None:
    own = json.loads((trained / "metrics.json").read_text())["test"]

    assert evaluate(Bundle.open(trained), [], torch.device("cpu")).summary() == pytest.approx(own)


def test_exported_it_gives_the_same_answers(trained: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.verify.rank.SECONDS", 0.5)  # how fast it is doesn't matter here
    made = export(Bundle.open(trained), Options(("onnx",), threads=1), [])
    row = made.facts.row("onnx")
    assert row is not None
    assert row.status in ("passed", "no_gain"), row.reason

    items = list(dataset.splits["test"].items[:100])
    exported, eager = (Predictor(trained, format, device="cpu") for format in ("onnx", "eager"))
    np.testing.assert_allclose(exported.probabilities(items), eager.probabilities(items), atol=1e-4)
    assert [answer.label for answer in exported.predict(items)] == [answer.label for answer in eager.predict(items)]
