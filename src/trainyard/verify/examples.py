"""What formats are scored on: the test split or, where the data isn't there, the samples that the bundle carries."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.errors import UsageError
from trainyard.data.encoded import EncodedSplit, encode_split, loader_workers
from trainyard.evaluation.evaluate import data_config, records_to_score
from trainyard.evaluation.predict import predict_split
from trainyard.formats.base import Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """Examples with their true classes.

    Attributes:
        split: The examples.
        batch_size: Of a call.
        workers: Threads that prepare batches.
        origin: Where they are from, as ``export.json`` tells it.
    """

    split: EncodedSplit
    batch_size: int
    workers: int
    origin: Json

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true classes, ``[examples] int64``."""
        return self.split.labels

    def logits(self, runtime: Runtime) -> NDArray[np.float32]:
        """What a format answers, ``[examples, classes] float32``."""

        def forward(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.from_numpy(runtime.logits({name: tensor.numpy() for name, tensor in inputs.items()}))

        logits = predict_split(
            forward, self.split, batch_size=self.batch_size, device=torch.device("cpu"), workers=self.workers
        )
        return logits.numpy()


def load_examples(bundle: Bundle, overrides: Sequence[str]) -> Examples:
    """Reads the bundle's test split, or the data that ``data.key=value`` words name.

    Raises:
        UsageError: an override isn't a key of the data section, or the data isn't there and the bundle has no samples.
        DataError: the data can't be read, or changed since the training.
    """
    data = data_config(bundle.facts, overrides)
    try:
        records = records_to_score(bundle.facts, data, overrides)
    except UsageError as error:
        if any(word.startswith("data.path=") for word in overrides):
            raise
        return _samples(bundle, str(error))
    split = encode_split(records, bundle.preprocessor, data, training=False)
    origin: Json = {"split": "test", "examples": len(split), "location": data.path, "overrides": list(overrides)}
    return Examples(split, data.batch_size, loader_workers(split, data), origin)


def _samples(bundle: Bundle, reason: str) -> Examples:
    samples = calibration_samples(bundle.path)
    if not samples:
        raise UsageError(f"{reason}; the bundle carries no samples either: name the data by data.path=...")
    log.warning(
        "%s; so the formats are scored on the %d training examples in the bundle, which int8 is calibrated on too",
        reason,
        len(samples),
    )
    encoded = bundle.preprocessor.encode_many([sample.item for sample in samples])
    labels = np.array([bundle.labels.index(sample.label) for sample in samples], dtype=np.int64)
    origin: Json = {"split": "samples of the training split in the bundle", "examples": len(samples)}
    return Examples(EncodedSplit(labels, bundle.preprocessor, lambda rows: [encoded[i] for i in rows]), 32, 0, origin)
