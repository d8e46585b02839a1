"""A model whose code has changed since it was sealed isn't used: its weights still fit, and its answers are wrong."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from toy import models
from toy.train import Config, train

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.errors import BundleError
from trainyard.evaluation.evaluate import evaluate
from trainyard.inference.predictor import Predictor
from trainyard.models.restore import TOLERANCE, open_classifier
from trainyard.training.checkpoint import read_checkpoint
from trainyard.verify.source import load_source

USES: dict[str, Callable[[Bundle], object]] = {
    "predict": lambda bundle: Predictor(bundle, "eager", device="cpu"),
    "evaluate": lambda bundle: evaluate(bundle, [], torch.device("cpu")),
    "export": lambda bundle: load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)]),
}


@pytest.fixture
def changed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's activation is another one than in training."""
    monkeypatch.setattr(functional, "relu", functional.gelu)


@pytest.mark.parametrize("use", USES)
def test_a_model_whose_code_has_changed_is_refused(use: str, digits_run: Path, changed_code: None) -> None:
    bundle = Bundle.open(digits_run)

    with pytest.raises(BundleError, match="code has changed since it was sealed.*put the code back"):
        USES[use](bundle)


def test_an_unchanged_model_opens_and_answers_as_it_did(digits_run: Path) -> None:
    bundle = Bundle.open(digits_run)
    classifier = open_classifier(bundle)

    assert not classifier.training
    for sample in golden_samples(bundle.path):
        inputs = bundle.preprocessor.collate([bundle.preprocessor.encode(sample.item)])
        answer = classifier(torch.from_numpy(inputs["images"])).softmax(dim=1)[0]
        assert answer.tolist() == pytest.approx(list(sample.probabilities), abs=TOLERANCE / 10)


def test_without_golden_requests_a_model_opens_unchecked(
    digits_run: Path, tmp_path: Path, changed_code: None, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run / "bundle", run / "bundle")
    bundle = Bundle.open(run)
    (bundle.path / "samples" / "golden.jsonl").unlink()

    with caplog.at_level(logging.DEBUG, "trainyard"):
        open_classifier(bundle)

    [record] = [one for one in caplog.records if "no golden requests" in one.message]
    assert record.levelno == logging.DEBUG


class Tied(models.Cnn):
    """Its second block is the first one again, and two of its buffers are views of one tensor."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.bn1, self.conv2 = nn.BatchNorm2d(32), nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.conv3, self.bn3, self.fc = self.conv2, self.bn2, nn.Linear(32, classes)
        both = torch.rand(64)
        self.register_buffer("low", both[:32])
        self.register_buffer("high", both[32:])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + self.fc(self.low - self.high)


def test_tied_weights_are_sealed_once_and_restored(
    digits_experiment: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "Cnn", Tied)
    run = train(digits_experiment())
    trained = read_checkpoint(run / "checkpoints" / "best.ckpt")["model"]
    sealed = load_file(run / "bundle" / "model.safetensors")

    assert {name.partition(".")[0] for name in trained.keys() - sealed.keys()} == {"conv3", "bn3"}
    network = open_classifier(Bundle.open(run)).network
    assert network.conv3.weight is network.conv2.weight
    same = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    assert all(torch.equal(tensor, trained[name]) for name, tensor in same.items())


def test_an_output_layer_that_is_shared_stays_as_it_is(
    digits_experiment: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Twice(models.Cnn):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.first = nn.Linear(64, classes)
            self.fc.weight = self.first.weight

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + self.first.weight.mean()

    monkeypatch.setattr(models, "Cnn", Twice)
    run = train(digits_experiment())

    assert "shares its weights" in caplog.text
    assert Bundle.open(run).facts.fitted_temperature == 1.0
    trained = read_checkpoint(run / "checkpoints" / "best.ckpt")["model"]
    assert torch.equal(load_file(run / "bundle" / "model.safetensors")["fc.weight"], trained["fc.weight"])
