"""The samples in a bundle: training examples for quantisers, test examples with the answers that are right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trainyard.artifacts.bundle import CALIBRATION, GOLDEN, SAMPLES, Json
from trainyard.preprocess.base import Item, load_sample


@dataclass(frozen=True)
class Sample:
    """A raw item with what is known of it.

    Attributes:
        item: An image's bytes, a text, or a pair of texts.
        label: Its true class; of a golden request, the class that the model answers.
        probabilities: What the model answered to a golden request; empty for a calibration record.
    """

    item: Item
    label: str
    probabilities: tuple[float, ...] = ()


def calibration_samples(bundle: Path) -> list[Sample]:
    """Examples of the training split with their true classes; none if the bundle carries none."""
    return [Sample(load_sample(line, bundle / SAMPLES), str(line["label"])) for line in _lines(bundle, CALIBRATION)]


def golden_samples(bundle: Path) -> list[Sample]:
    """Examples of the test split with the model's own answers; none if the bundle carries none."""
    samples = []
    for line in _lines(bundle, GOLDEN):
        expected = line["expected"]
        assert isinstance(expected, dict)
        probabilities = tuple(float(p) for p in expected["probabilities"])
        samples.append(Sample(load_sample(line, bundle / SAMPLES), str(expected["label"]), probabilities))
    return samples


def _lines(bundle: Path, name: str) -> list[Json]:
    path = bundle / SAMPLES / name
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
