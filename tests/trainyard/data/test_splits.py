"""Dividing examples: stratified, seeded, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.base.errors import DataError
from trainyard.config.data import TextsConfig
from trainyard.data.records import Rows, Split
from trainyard.data.splits import check_splits, complete_splits, limit_rows, sorted_classes

Texts = Callable[..., TextsConfig]


def rows(counts: dict[str, int]) -> Rows:
    labels = [name for name, count in counts.items() for _ in range(count)]
    return Rows([f"text {i}" for i in range(len(labels))], labels, [f"t:{i}" for i in range(len(labels))])


def config(**keys: object) -> TextsConfig:
    return TextsConfig.model_validate({"kind": "texts", "path": "t.csv", **keys})


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 3), st.sampled_from([0.05, 0.1, 0.3]))
def test_every_example_lands_in_exactly_one_split(sizes: list[int], seed: int, fraction: float) -> None:
    found = rows({f"class {i}": size for i, size in enumerate(sizes)})

    splits = complete_splits({"train": found}, config(val_fraction=fraction, test_fraction=fraction), seed)

    assert sorted(item for part in splits.values() for item in part.items) == sorted(found.items)
    assert set(splits["train"].labels) == set(found.labels), "each class keeps an example to learn from"


def test_fractions_and_classes_are_in_proportion() -> None:
    splits = complete_splits({"train": rows({"a": 800, "b": 200})}, config(val_fraction=0.1, test_fraction=0.2), 0)

    assert Counter(splits["test"].labels) == {"a": 160, "b": 40}
    assert Counter(splits["val"].labels) == {"a": 64, "b": 16}


def test_the_seed_decides() -> None:
    found: dict[Split, Rows] = {"train": rows({"a": 50, "b": 50})}
    first, again, other = (complete_splits(found, config(), seed)["test"].items for seed in (0, 0, 1))

    assert first == again
    assert first != other


def test_only_what_is_missing_is_held_out() -> None:
    test = rows({"a": 3, "b": 3})

    splits = complete_splits({"train": rows({"a": 20, "b": 20}), "test": test}, config(), 0)

    assert splits["test"] is test
    assert (len(splits["train"]), len(splits["val"])) == (36, 4)


def test_a_rare_class_is_held_out_where_only_two_are_there() -> None:
    splits = complete_splits({"train": rows({"a": 1000, "b": 4})}, config(), 0)

    assert Counter(splits["val"].labels)["b"] == 1
    check_splits(splits, config())


@pytest.mark.parametrize("split", ["val", "test"])
def test_nothing_held_out_is_an_empty_split(split: Split) -> None:
    data = config(**{f"{split}_fraction": 0})

    with pytest.raises(DataError, match=rf"the {split} split of t.csv is empty.*data\.{split}_fraction"):
        check_splits(complete_splits({"train": rows({"a": 20, "b": 20})}, data, 0), data)


def test_data_without_training_examples_are_refused() -> None:
    with pytest.raises(DataError, match="no training examples"):
        complete_splits({"test": rows({"a": 2})}, config(), 0)


def test_data_without_training_examples_say_what_was_found_instead() -> None:
    with pytest.raises(
        DataError, match="no training examples; mend first .*: the train split has no labels; 2 files aren't"
    ) as e:
        complete_splits({}, config(), 0, ["the train split has no labels", "2 files aren't images"])
    assert "name a folder" not in str(e.value)


def test_a_limit_keeps_the_proportions() -> None:
    found = rows({"a": 90, "b": 10})

    limited = limit_rows(found, 20, seed=0)

    assert Counter(limited.labels) == {"a": 18, "b": 2}
    assert limit_rows(found, 20, seed=0).items == limited.items
    assert limit_rows(found, 20, seed=1).items != limited.items
    assert limit_rows(found, 100, seed=0) is found
    assert limit_rows(found, None, seed=0) is found


def test_integers_sort_by_value_and_names_by_letter() -> None:
    assert sorted_classes(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sorted_classes(["b", "10", "9"]) == ("10", "9", "b")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ({"a": 2, "b": 2}, {"a": 2, "b": 1, "zebra": 3}, r"val split .* training lacks \('zebra': 3 examples\)"),
        ({"a": 2, "b": 2}, {"a": 2}, "val split .* has a single class, 'a'"),
        ({"a": 2}, {"a": 2}, "train split .* has a single class, 'a'"),
    ],
)
def test_splits_that_cannot_measure_are_refused(train: dict[str, int], val: dict[str, int], message: str) -> None:
    splits: dict[Split, Rows] = {"train": rows(train), "val": rows(val), "test": rows({"a": 1, "b": 1})}

    with pytest.raises(DataError, match=message):
        check_splits(splits, config())
