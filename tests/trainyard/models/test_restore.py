"""A model whose code has changed since it was sealed isn't used: its weights still fit, and its answers are wrong."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.errors import BundleError
from trainyard.evaluation.evaluate import evaluate
from trainyard.inference.predictor import Predictor
from trainyard.models.restore import TOLERANCE, open_classifier
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
