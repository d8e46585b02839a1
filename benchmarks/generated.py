"""Workloads of generated data, for machines that have none: they take the way that real data takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from workload import Workload, make_workload

from trainyard.config.data import ImagesConfig
from trainyard.config.experiment import Experiment
from trainyard.config.load import parse_experiment
from trainyard.data.image_cache import DecodedImages
from trainyard.data.records import Dataset, Records, Split
from trainyard.data.report import DataReport, Duplicates
from trainyard.preprocess.base import Item, Preprocessor
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor

DISTINCT_IMAGES = 1024
"""Examples share these: so many don't fit into a processor's cache, and more would only fill the disk."""
TRAINER = {"max_epochs": 2, "precision": "bf16-mixed", "loggers": []}
BASE = {"hidden_size": 768, "layers": 12, "heads": 12, "vocab_size": 30522}
TINY = {"hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 500}
"""The shape of BERT's base size, and one to try the script out with."""


@dataclass(frozen=True)
class Setting:
    """Where a workload runs: ``device`` is ``cuda`` or ``cpu``, ``scratch`` a folder for its files."""

    scratch: Path
    device: str
    quick: bool

    def experiment(self, name: str, steps: int, sections: Mapping[str, object], channels_last: bool) -> Experiment:
        """A config for ``steps`` steps in each epoch."""
        devices = "cpu" if self.device == "cpu" else 1
        # The loss is read at an epoch's last step only, which also waits for the GPU before the clock is read.
        trainer = {**TRAINER, "devices": devices, "log_every": steps, "channels_last": channels_last}
        if self.quick:
            trainer["threads"] = 1
        return parse_experiment({"name": name, "out": str(self.scratch), "trainer": trainer, **sections}, name)


def images(name: str, size: int, classes: int, batch_size: int, steps: int, setting: Setting) -> Workload:
    """Noise as images, for a ResNet in the layout that GPUs convolve fastest."""
    batch_size, steps = (2, 2) if setting.quick else (batch_size, steps)
    sections = {
        "data": {"kind": "images", "path": "generated", "image_size": size, "batch_size": batch_size},
        "model": {"kind": "resnet", "name": name},
        "optim": {"name": "sgd", "lr": 0.01},
    }
    experiment = setting.experiment(name, steps, sections, channels_last=True)
    assert isinstance(experiment.data, ImagesConfig)
    preprocessor = ImagePreprocessor(size, experiment.data.resize_to, *experiment.data.pixel_limits)
    examples = batch_size * steps
    distinct = min(DISTINCT_IMAGES, examples)
    pixels = np.random.default_rng(0).integers(0, 256, (distinct, *[preprocessor.resize] * 2, 3), dtype=np.uint8)
    decoded = DecodedImages(lambda: pixels, np.arange(examples) % distinct, preprocessor)
    return _workload(experiment, preprocessor, [b""] * examples, classes, decoded)


def texts(tokens: int, batch_size: int, steps: int, setting: Setting) -> Workload:
    """Random words, all texts of one length, for a BERT of base size."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens, batch_size, steps = (16, 2, 2) if setting.quick else (tokens, batch_size, steps)
    shape = TINY if setting.quick else BASE
    sections = {
        "data": {"kind": "texts", "path": "generated", "max_length": tokens, "batch_size": batch_size,
                 "cache": str(setting.scratch / "cache")},
        "model": {"kind": "bert", **shape},
        "optim": {"name": "adamw", "lr": 1e-5, "weight_decay": 0.01},
    }  # fmt: skip
    experiment = setting.experiment("bert", steps, sections, channels_last=False)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(shape["vocab_size"])}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = np.random.default_rng(0).integers(1, shape["vocab_size"], (batch_size * steps, tokens))
    items: list[Item] = [" ".join(f"w{word}" for word in row) for row in words]
    return _workload(experiment, TextPreprocessor(tokenizer, tokens, segments=True), items, classes=2)


GENERATED: Mapping[str, Callable[[Setting], Workload]] = {
    "resnet18": partial(images, "resnet18", 32, 10, 512, 100),
    "resnet50": partial(images, "resnet50", 224, 1000, 256, 40),
    "bert": partial(texts, 128, 128, 60),
}
"""Pixels and classes, or tokens; then the batch size and the steps of an epoch."""


def _workload(
    experiment: Experiment,
    preprocessor: Preprocessor,
    items: list[Item],
    classes: int,
    decoded: DecodedImages | None = None,
) -> Workload:
    """All splits are of the same examples; the validation's are one batch."""
    labels = np.arange(len(items), dtype=np.int64) % classes
    few = np.arange(experiment.data.batch_size)

    def records(rows: NDArray[np.int64]) -> Records:
        return Records([items[i] for i in rows], labels[rows], [""] * len(rows), decoded and decoded.select(rows))

    splits: dict[Split, Records] = {"train": records(np.arange(len(items))), "val": records(few), "test": records(few)}
    names = tuple(str(i) for i in range(classes))
    report = DataReport("generated", "", {}, len(items), (), Duplicates(), ())
    return make_workload(experiment, Dataset(splits, names, "", "generated", report), preprocessor)
