"""What a real server answers over HTTP is what ``trainyard evaluate --format`` scores, on whole test splits."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy.train import Config, train

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FormatName
from trainyard.torchserve.running import Running, running

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
RUNGS: tuple[FormatName, ...] = ("torchscript", "onnx", "onnx-int8")
TRAINER = {"devices": "cpu", "threads": 1, "loggers": []}
DIGITS = {
    "name": "digits",
    "data": {"kind": "images", "path": "embedded:digits", "image_size": 16, "limit": 1200},
    "model": {"kind": "cnn"},
    "optim": {"lr": 0.1},
    "trainer": {"max_epochs": 4, **TRAINER},
}
TICKETS = {
    "name": "tickets",
    "data": {"kind": "texts", "path": "embedded:tickets", "limit": 1200, "max_length": 64},
    "model": {"kind": "encoder", "vocab_size": 1000},
    "optim": {"name": "adamw", "lr": 5e-3},
    "trainer": {"max_epochs": 6, **TRAINER},
}  # fmt: skip

pytestmark = pytest.mark.slow


def exported(folder: Path, config: dict[str, object]) -> Path:
    """Trains a model and exports it; whatever the gate says of a format, all others can be served."""
    from trainyard.verify.export import Options, export

    section = config["data"]
    assert isinstance(section, dict)
    experiment = {**config, "out": folder / "runs", "data": {**section, "cache": str(folder / "cache")}}
    run = train(Config.model_validate(experiment))
    export(Bundle.open(run), Options(RUNGS, threads=1), [])
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {"digits": exported(folder, DIGITS), "tickets": exported(folder, TICKETS)}


@pytest.fixture(scope="module", params=["torchscript", "auto"])
def server(request: pytest.FixtureRequest, runs: dict[str, Path]) -> Iterator[Running]:
    with running([f"{name}={run}" for name, run in runs.items()], ["--format", request.param]) as server:
        yield server


@pytest.mark.parametrize("model", ["digits", "tickets"])
def test_answers_over_http_are_those_of_the_evaluation(
    model: str, server: Running, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)

    skew = importlib.import_module("skew").measure_skew(server, model, runs[model])

    assert skew.examples > 100
    assert skew.labels == 0
    assert skew.probability < 1e-5
