"""What every run relies on in the data: they load as the config says, and are what a person means by them."""

from __future__ import annotations

import numpy as np

from trainyard.data.load import load_dataset
from trainyard.data.records import Dataset

from my_project.train import Config


def test_every_split_has_every_class(dataset: Dataset) -> None:
    assert len(dataset.classes) > 1
    assert set(dataset.splits) == {"train", "val", "test"}
    for records in dataset.splits.values():
        assert set(records.labels.tolist()) == set(range(len(dataset.classes)))


def test_no_class_is_nearly_all_there_is(dataset: Dataset) -> None:
    shares = np.bincount(dataset.splits["train"].labels) / len(dataset.splits["train"])

    assert shares.max() < 0.8, "say optim.class_weights=balanced, and judge by macro_f1"


def test_no_example_is_bad_and_none_is_in_two_splits(dataset: Dataset) -> None:
    assert list(dataset.report.bad) == []
    assert dataset.report.duplicates.across_splits == 0, "the scores would be too good"


def test_the_same_examples_are_in_a_split_each_time(dataset: Dataset, experiment: Config) -> None:
    again = load_dataset(experiment.data.model_copy(update={"limit": None}), experiment.seed)

    assert again.fingerprint == dataset.fingerprint


def test_every_example_becomes_a_tensor(dataset: Dataset, experiment: Config) -> None:
    preprocessor = experiment.model.preprocessor(experiment.data, dataset.splits["train"].items)

    for records in dataset.splits.values():
        for item in records.items[:200]:
            inputs = preprocessor.collate([preprocessor.encode(item)])
            assert all(len(tensor) == 1 and tensor.size for tensor in inputs.values())
