"""Scores a written bundle: at the end of a run and, by the same code, whenever someone asks again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainyard.artifacts.bundle import Bundle, BundleFacts
from trainyard.base.errors import DataError, TrainyardError, UsageError
from trainyard.config.data import DATA_KINDS, ImagesConfig, TextsConfig
from trainyard.config.load import apply_overrides, parse_data
from trainyard.config.section import Change, keys_that_change
from trainyard.formats.table import find_format
from trainyard.heads.table import head_of

if TYPE_CHECKING:
    import torch

    from trainyard.artifacts.export_record import FormatName, Opened
    from trainyard.data.records import Records
    from trainyard.evaluation.predict import Forward
    from trainyard.formats.base import Runtime
    from trainyard.heads.base import Head
    from trainyard.heads.scores import Scores
    from trainyard.models.classifier import Classifier
    from trainyard.preprocess.base import Preprocessor


def evaluate(bundle: Bundle, overrides: Sequence[str], device: torch.device) -> Scores:
    """Scores a bundle on its own test split, or on the data that ``data.key=value`` words name.

    Raises:
        UsageError: an override isn't a key of the data section.
        DataError: the data can't be read, has labels that the bundle doesn't know, or changed since the training.
    """
    from trainyard.models.restore import open_classifier

    data = data_config(bundle.facts, overrides)
    records = records_to_score(bundle.facts, data, overrides)
    classifier = open_classifier(bundle)
    return score_records(head_of(bundle), classifier, bundle.preprocessor, records, data, bundle.labels, device)


def evaluate_format(opened: Opened, format: FormatName, overrides: Sequence[str]) -> Scores:
    """Scores a format of an export on what ``evaluate`` scores on, in this process, on the CPU unless it is for GPUs.

    Raises:
        UsageError: there is no such format, or it can't run here; or as ``evaluate``.
        BundleError: the format can't be loaded.
        DataError: as ``evaluate``.
    """
    import torch

    from trainyard.evaluation.metrics import measure

    records, logits = format_logits(opened, format, overrides)
    return measure(head_of(opened.bundle), logits, torch.from_numpy(records.labels), opened.bundle.labels)


def format_logits(opened: Opened, format: FormatName, overrides: Sequence[str]) -> tuple[Records, torch.Tensor]:
    """What ``evaluate_format`` scores: the examples and the logits ``[examples, classes] float32``; raises the same."""
    import torch

    from trainyard.inference.selection import choose

    bundle = opened.bundle
    data = data_config(bundle.facts, overrides)
    runtime = choose(opened, format, None if find_format(format).device == "gpu" else "cpu").runtime
    records = records_to_score(bundle.facts, data, overrides)
    return records, record_logits(runtime, bundle.preprocessor, records, data, torch.device("cpu"))


def score_records(
    head: Head,
    model: Classifier | Runtime,
    preprocessor: Preprocessor,
    records: Records,
    data: ImagesConfig | TextsConfig,
    labels: Sequence[str],
    device: torch.device,
) -> Scores:
    """Scores a model on raw records, over all processes of the job.

    Args:
        head: What the logits mean.
        device: Where a classifier runs; a runtime takes its inputs from the CPU.
    """
    import torch

    from trainyard.evaluation.metrics import measure

    logits = record_logits(model, preprocessor, records, data, device)
    return measure(head, logits, torch.from_numpy(records.labels), labels)


def record_logits(
    model: Classifier | Runtime,
    preprocessor: Preprocessor,
    records: Records,
    data: ImagesConfig | TextsConfig,
    device: torch.device,
) -> torch.Tensor:
    """What ``score_records`` scores: logits ``[records, classes] float32``, on the CPU."""
    from trainyard.data.encoded import encode_split, loader_workers
    from trainyard.evaluation.predict import predict_split

    split = encode_split(records, preprocessor, data, training=False)
    return predict_split(
        _forward(model, device),
        split,
        batch_size=data.batch_size,
        device=device,
        workers=loader_workers(split, data),
    )


def _forward(model: Classifier | Runtime, device: torch.device) -> Forward:
    import torch

    if isinstance(model, torch.nn.Module):
        classifier = model.to(device).eval()
        return lambda inputs: classifier(**inputs)
    assert device.type == "cpu"
    return lambda inputs: torch.from_numpy(model.logits({name: tensor.numpy() for name, tensor in inputs.items()}))


def data_config(facts: BundleFacts, overrides: Sequence[str]) -> ImagesConfig | TextsConfig:
    """The bundle's ``data`` section with the ``data.key=value`` words in it.

    Raises:
        UsageError: an override isn't a key of the data section, or is one that the bundle fixes.
    """
    for word in overrides:
        if not word.startswith("data."):
            raise UsageError(f"'{word}' isn't a key of the data; evaluate takes data.path=... and other data.* keys")
        if _key(word) in _data_keys_that_change("inputs"):  # whose values the bundle's preprocessor holds
            raise UsageError(f"data.{_key(word)} is fixed in the bundle: leave it out, or train again with another")
    # A bundle of an earlier release may have keys that are elsewhere now, such as those of augmentation.
    known = DATA_KINDS[str(facts.data.config["kind"])].model_fields
    tree: dict[str, object] = {"data": {key: value for key, value in facts.data.config.items() if key in known}}
    apply_overrides(tree, overrides)
    return parse_data(tree)


def _key(word: str) -> str:
    return word.partition("=")[0].removeprefix("data.")


def _data_keys_that_change(*what: Change) -> set[str]:
    return {key for section in DATA_KINDS.values() for key in keys_that_change(section, *what)}


def records_to_score(facts: BundleFacts, data: ImagesConfig | TextsConfig, overrides: Sequence[str]) -> Records:
    """The bundle's own test split, also where its data lies elsewhere now, or that of other data.

    Args:
        facts: The bundle's.
        data: With the overrides in it.
        overrides: The words themselves; they tell what the user wants other than in the training.

    Raises:
        DataError: the data can't be read, has labels that the bundle doesn't know, or changed since the training.
    """
    from trainyard.data.load import has_split, load_split

    changed = {_key(word) for word in overrides}
    moved = "path" in changed
    # Data with a test split of its own needn't be known again, which would read all of it.
    same_examples = _data_keys_that_change("nothing", "place", "batches")
    if not changed - same_examples and not (moved and has_split(data, "test")):
        try:
            return _own_test_split(facts, data)
        except TrainyardError:
            if not moved:
                raise
    if "limit" not in changed:  # the bundle's was for its own data
        data = data.model_copy(update={"limit": None})
    return load_split(data, tuple(facts.labels))


def _own_test_split(facts: BundleFacts, data: ImagesConfig | TextsConfig) -> Records:
    """The test split that the training held out.

    Raises:
        DataError: the data isn't that of the training.
    """
    from trainyard.data.load import load_dataset

    seed, limit = int(str(facts.training["seed"])), facts.data.config["limit"]
    dataset = load_dataset(data.model_copy(update={"limit": limit}), seed)
    if dataset.fingerprint != facts.data.fingerprint:
        raise DataError(
            f"the data at {facts.data.location} changed since the training; to score the bundle on all that "
            f"lies there now, add data.path={facts.data.location}"
        )
    if data.limit != limit:
        dataset = load_dataset(data, seed)
    return dataset.splits["test"]
