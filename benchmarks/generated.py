"""Workloads of generated data, for machines that have none: they take the way that real data takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from workload import Workload, make_workload

from trainyard.config.data import ImagesConfig
from trainyard.config.experiment import Experiment
from trainyard.config.load import parse_experiment
from trainyard.core.preprocess import ImagePreprocessor, Item, Preprocessor, TextPreprocessor
from trainyard.data.image_cache import DecodedImages, PixelFile
from trainyard.data.records import Dataset, Records, Split
from trainyard.data.report import DataReport, Duplicates

DISTINCT_IMAGES = 1024
"""Examples share these: so many don't fit into a processor's cache, and more would only fill the disk."""
VOCABULARY = 30522
"""BERT's."""
TOKENS, QUICK_TOKENS = 128, 16
TRAINER = {"max_epochs": 2, "precision": "bf16-mixed", "loggers": []}


def images(
    name: str, size: int, classes: int, batch_size: int, batches: int, scratch: Path, device: str, quick: bool
) -> Workload:
    """Noise as images, for a ResNet in the layout that GPUs convolve fastest."""
    batch_size, batches = (2, 2) if quick else (batch_size, batches)
    experiment = _experiment(f"generated-{name}", scratch, device, batches, {
        "data": {"kind": "images", "path": "generated", "image_size": size, "batch_size": batch_size},
        "model": {"kind": "resnet", "name": name},
        "optim": {"name": "sgd", "lr": 0.01},
    }, channels_last=True)  # fmt: skip
    assert isinstance(experiment.data, ImagesConfig)
    preprocessor = ImagePreprocessor(size, experiment.data.resize_to)
    examples = batch_size * batches
    distinct = min(DISTINCT_IMAGES, examples)
    pixels = np.random.default_rng(0).integers(0, 256, (distinct, *[preprocessor.resize] * 2, 3), dtype=np.uint8)
    file = scratch / f"{name}.npy"
    np.save(file, pixels)
    decoded = DecodedImages(PixelFile(file), np.arange(examples) % distinct, preprocessor)
    return _workload(experiment, preprocessor, [b""] * examples, classes, decoded)


def texts(batch_size: int, batches: int, scratch: Path, device: str, quick: bool) -> Workload:
    """Random words, all texts of one length, for a BERT of base size."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    batch_size, batches, tokens = (2, 2, QUICK_TOKENS) if quick else (batch_size, batches, TOKENS)
    layers = 2 if quick else 12
    experiment = _experiment("generated-bert", scratch, device, batches, {
        "data": {"kind": "texts", "path": "generated", "max_length": tokens, "batch_size": batch_size,
                 "cache": str(scratch / "cache")},
        "model": {"kind": "bert", "hidden_size": 768, "layers": layers, "heads": 12, "vocab_size": VOCABULARY},
        "optim": {"name": "adamw", "lr": 1e-5, "weight_decay": 0.01},
    })  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = np.random.default_rng(0).integers(1, VOCABULARY, (batch_size * batches, tokens))
    items: list[Item] = [" ".join(f"w{word}" for word in row) for row in words]
    return _workload(experiment, TextPreprocessor(tokenizer, tokens, segments=True), items, classes=2)


GENERATED: Mapping[str, Callable[[Path, str, bool], Workload]] = {
    "resnet18": partial(images, "resnet18", 32, 10, 512, 100),
    "resnet50": partial(images, "resnet50", 224, 1000, 256, 40),
    "bert": partial(texts, 128, 60),
}
"""Makes a workload: ``(scratch folder, "cuda" or "cpu", quick)``."""


def _experiment(
    name: str, scratch: Path, device: str, steps: int, sections: Mapping[str, Mapping[str, object]],
    channels_last: bool = False,
) -> Experiment:  # fmt: skip
    # The loss is read at an epoch's last step only, which also waits for the GPU before the clock is read.
    trainer = {
        **TRAINER,
        "devices": "cpu" if device == "cpu" else 1,
        "log_every": steps,
        "channels_last": channels_last,
    }
    return parse_experiment({"name": name, "out": str(scratch), "trainer": trainer, **sections}, name)


def _workload(
    experiment: Experiment, preprocessor: Preprocessor, items: list[Item], classes: int,
    decoded: DecodedImages | None = None,
) -> Workload:  # fmt: skip
    """All splits are of the same examples; the validation's are one batch."""
    labels = np.arange(len(items), dtype=np.int64) % classes
    few = np.arange(experiment.data.batch_size)

    def records(rows: np.ndarray) -> Records:
        return Records([items[i] for i in rows], labels[rows], [""] * len(rows), decoded and decoded.select(rows))

    splits: dict[Split, Records] = {"train": records(np.arange(len(items))), "val": records(few), "test": records(few)}
    names = tuple(str(i) for i in range(classes))
    report = DataReport("generated", "", {}, len(items), (), Duplicates(0, ()), ())
    return make_workload(experiment, Dataset(splits, names, "", "generated", report), preprocessor)
