"""Scores a written bundle: at the end of a run and, by the same code, whenever someone asks again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.load import apply_overrides, parse_data
from trainyard.core.bundle import Bundle, BundleFacts
from trainyard.errors import DataError, UsageError

if TYPE_CHECKING:
    import torch

    from trainyard.core.preprocess import Preprocessor
    from trainyard.data.records import Records
    from trainyard.evaluation.scores import Scores
    from trainyard.models.classifier import Classifier


def evaluate(bundle: Bundle, overrides: Sequence[str], device: torch.device) -> Scores:
    """Scores a bundle on its own test split, or on the data that ``data.key=value`` words name.

    Raises:
        UsageError: an override isn't a key of the data section.
        DataError: the data can't be read, has labels that the bundle doesn't know, or changed since the training.
    """
    from trainyard.core.eager import load_classifier

    data = _data_config(bundle.facts, overrides)
    records = _records(bundle.facts, data, own=not overrides)
    classifier = load_classifier(bundle.path, bundle.facts, bundle.preprocessor)
    return score_records(classifier, bundle.preprocessor, records, data, bundle.labels, device)


def score_records(
    classifier: Classifier,
    preprocessor: Preprocessor,
    records: Records,
    data: ImagesConfig | TextsConfig,
    labels: Sequence[str],
    device: torch.device,
) -> Scores:
    """Scores a classifier on raw records, over all processes of the job."""
    import torch

    from trainyard.data.encoded import encode_split, loader_workers
    from trainyard.evaluation.predict import predict_split
    from trainyard.evaluation.scores import score

    split = encode_split(records, preprocessor, data, training=False)
    model = classifier.to(device).eval()
    logits = predict_split(
        lambda inputs: model(**inputs),
        split,
        batch_size=data.batch_size,
        device=device,
        workers=loader_workers(split, data),
    )
    return score(logits, torch.from_numpy(split.labels), labels)


def _data_config(facts: BundleFacts, overrides: Sequence[str]) -> ImagesConfig | TextsConfig:
    foreign = [word for word in overrides if not word.startswith("data.")]
    if foreign:
        raise UsageError(f"'{foreign[0]}' isn't a key of the data; evaluate takes data.path=... and other data.* keys")
    tree: dict[str, object] = {"data": dict(facts.data.config)}
    apply_overrides(tree, overrides)
    return parse_data(tree)


def _records(facts: BundleFacts, data: ImagesConfig | TextsConfig, own: bool) -> Records:
    from trainyard.data.load import load_dataset, load_split

    if not own:
        return load_split(data, tuple(facts.labels))
    dataset = load_dataset(data, int(str(facts.training["seed"])))
    if dataset.fingerprint != facts.data.fingerprint:
        raise DataError(
            f"the data at {facts.data.location} changed since the training; to score the bundle on what "
            f"lies there now, add data.path={facts.data.location}"
        )
    return dataset.splits["test"]
