"""What a bundle carries of the data: calibration records, golden requests, and the drift reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.bundle import CALIBRATION, GOLDEN, SAMPLES
from trainyard.artifacts.drift import DriftReference
from trainyard.base.files import write_text
from trainyard.data.records import Records
from trainyard.preprocess.base import Item, Preprocessor, load_sample
from trainyard.training.randomness import derive_seed

if TYPE_CHECKING:
    from trainyard.models.classifier import Classifier

CALIBRATION_RECORDS = 128
GOLDEN_REQUESTS = 16
DRIFT_RECORDS = 1000


def choose(records: Records, count: int, seed: int) -> NDArray[np.int64]:
    """Picks up to ``count`` examples at random, as many of each class as its share allows, and one at least."""
    generator = np.random.default_rng(derive_seed(seed, "samples", count))
    shuffled = generator.permutation(len(records))
    # Position within its class: sorting by it takes the first of every class, then the second, ...
    position = np.zeros(len(records), dtype=np.int64)
    for label in np.unique(records.labels):
        of_class = shuffled[records.labels[shuffled] == label]
        position[of_class] = np.arange(len(of_class))
    order = shuffled[np.argsort(position[shuffled], kind="stable")]
    chosen: NDArray[np.int64] = order[:count]
    return chosen


def write_samples(
    folder: Path,
    train: Records,
    test: Records,
    preprocessor: Preprocessor,
    classifier: Classifier,
    labels: Sequence[str],
    seed: int,
) -> None:
    """Writes ``samples/``: training examples for quantisers, test examples with the answers that are right."""
    samples = folder / SAMPLES
    calibration = [
        {**preprocessor.store(train.items[i], samples, f"calibration/{n:04d}"), "label": labels[train.labels[i]]}
        for n, i in enumerate(choose(train, CALIBRATION_RECORDS, seed))
    ]
    _write_jsonl(samples / CALIBRATION, calibration)
    golden = []
    for n, i in enumerate(choose(test, GOLDEN_REQUESTS, seed)):
        stored = preprocessor.store(test.items[i], samples, f"golden/{n:04d}")
        probabilities = predict_probabilities(classifier, preprocessor, [load_sample(stored, samples)])[0]
        answer = {"label": labels[int(probabilities.argmax())], "probabilities": [float(p) for p in probabilities]}
        golden.append({**stored, "expected": answer})
    _write_jsonl(samples / GOLDEN, golden)


def drift_reference(
    test: Records, probabilities: NDArray[np.float32], preprocessor: Preprocessor, seed: int
) -> DriftReference:
    """What live traffic is held against: the answers ``[examples, classes] float32`` to the test split, and its inputs.

    Of the inputs some are measured, as it takes their decoding. Not of the training split, whose answers are surer.
    """
    generator = np.random.default_rng(derive_seed(seed, "drift"))
    chosen = generator.permutation(len(test))[:DRIFT_RECORDS]
    rows = [preprocessor.measures(row) for row in preprocessor.encode_many(test.items[i] for i in chosen)]
    return DriftReference.of(probabilities, {name: [row[name] for row in rows] for name in rows[0]})


def predict_probabilities(
    classifier: Classifier, preprocessor: Preprocessor, items: Sequence[Item], batch_size: int = 32
) -> NDArray[np.float32]:
    """Probabilities ``[items, classes] float32`` of raw items, on the CPU."""
    import torch

    device = next(classifier.network.parameters()).device
    rows = []
    for start in range(0, len(items), batch_size):
        inputs = preprocessor.collate(preprocessor.encode_many(items[start : start + batch_size]))
        with torch.no_grad():
            logits = classifier(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
        rows.append(logits.float().softmax(dim=1).cpu().numpy())
    return np.concatenate(rows)


def _write_jsonl(path: Path, records: Sequence[dict[str, object]]) -> None:
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
