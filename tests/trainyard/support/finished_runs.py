"""Run folders as a training leaves them, made up: what a report is drawn of."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from trainyard.artifacts.bundle import FACTS, SCHEMA_VERSION, BundleFacts, DataFacts
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.run import CONFIG, METRICS, METRICS_CSV, PREDICTIONS
from trainyard.base.files import write_json, write_text
from trainyard.evaluation.predictions import Predictions, write_predictions
from trainyard.heads.single_label import SingleLabel
from trainyard.report.card import made_up_facts

CONFIG_TEXT = "name: made_up\ndata: {path: /home/ann/some.csv}\ntrainer: {min_gain: 0.01}\n"


PICTURE_BYTES = 7_500
"""A picture has less than that."""


def pictures(count: int, side: int = 96) -> list[bytes]:
    """Noise, of which a JPEG has the most bytes."""
    generator = np.random.default_rng(0)
    made = [_jpeg(generator.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(count)]
    assert all(len(picture) < PICTURE_BYTES for picture in made)
    return made


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return file.getvalue()


def finished_run(
    run: Path, classes: Sequence[str], shown: Sequence[str | bytes | None], share_right: float = 0.8, seed: int = 0
) -> Path:
    """A run with as many test examples as are shown, of which about this share is right; returns its folder."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(len(shown), len(classes))).astype(np.float32)
    best = logits.argmax(axis=1)
    labels = np.where(generator.random(len(shown)) < share_right, best, generator.integers(0, len(classes), len(shown)))
    predictions = Predictions(
        classes=tuple(classes),
        ids=[f"{i:032x}" for i in range(len(shown))],
        sources=[f"test.csv:{i + 2}" for i in range(len(shown))],
        labels=labels,
        probabilities=SingleLabel().probabilities(3 * logits),
        trait="brightness" if any(isinstance(one, bytes) for one in shown) else "characters",
        traits=generator.random(len(shown)).astype(np.float32),
        shown=shown,
    )
    scores = SingleLabel().scores(torch.from_numpy(3 * logits), torch.from_numpy(labels), classes)
    kind = "image" if predictions.trait == "brightness" else "text"
    made = made_up_facts(CONFIG_TEXT, kind, classes)  # type: ignore[arg-type]
    data = {"conflicting": {"count": 1, "examples": [["one", "other"]]}, "near": {"count": 0, "examples": []}}
    report = {**made.data, "duplicates": {**made.data["duplicates"], **data}, "notes": []}  # type: ignore[dict-item]
    facts = BundleFacts(
        schema_version=SCHEMA_VERSION,
        name="made_up",
        created="2026-01-01T00:00:00+00:00",
        task=f"{kind}-classification",
        model={"kind": "bert", "name": "bert"},
        preprocess={},
        labels=list(classes),
        temperature=1.0,
        fitted_temperature=1.0,
        metrics={"test": scores.to_dict(), "val": scores.to_dict()},
        training=dict(made.training),
        environment=dict(made.environment),
        data=DataFacts(config={}, location="/home/ann/some.csv", fingerprint="0" * 64, report=report),
        drift_reference={},
    )
    bundle = run / "bundle"
    bundle.mkdir(parents=True)
    write_json(bundle / FACTS, facts.model_dump(mode="json"))
    write_manifest(bundle)
    write_text(run / CONFIG, yaml.safe_dump(yaml.safe_load(CONFIG_TEXT)))
    write_text(run / METRICS_CSV, "epoch,train_loss,val_loss,val_accuracy,val_macro_f1\n1,1,1,.5,.5\n2,,.5,.6,.6\n")
    write_json(run / METRICS, {"test": scores.summary(), "baseline": made.baseline.model_dump(mode="json")})
    write_predictions(run / PREDICTIONS, predictions)
    return run
