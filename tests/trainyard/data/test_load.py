"""Whole datasets: bad examples and their quota, duplicates, fingerprint, limit, one split alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.load import load_dataset, load_split
from trainyard.data.records import Dataset

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]
CLASSES = {"cat": 10, "dog": 10}


@pytest.fixture
def folder(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    """Twenty images each in train, val and test."""
    for split in ("train", "val", "test"):
        write_images(tmp_path / "pets" / split, CLASSES)
    return tmp_path / "pets"


def fingerprint(dataset: Dataset) -> str:
    assert dataset.fingerprint == dataset.report.fingerprint
    return dataset.fingerprint


def test_a_dataset_has_splits_labels_classes_and_counts(folder: Path, images: Images) -> None:
    dataset = load_dataset(images(folder), seed=0)

    assert dataset.classes == ("cat", "dog")
    assert dataset.location == str(folder)
    train = dataset.splits["train"]
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [0] * 10 + [1] * 10
    assert train.items[10] == folder / "train" / "dog" / "000.png"
    none = {"count": 0, "examples": []}
    assert dataset.report.to_dict() == {
        "location": str(folder),
        "fingerprint": dataset.fingerprint,
        "classes": {name: {"train": 10, "val": 10, "test": 10} for name in ("cat", "dog")},
        "splits": {"train": 20, "val": 20, "test": 20},
        "bad": {"count": 0, "share": 0.0, "items": []},
        "duplicates": {"across_splits": 0, "examples": [], "conflicting": none, "near": none},
        "warnings": [],
        "notes": [],
    }


def damage(folder: Path, count: int) -> None:
    for path in sorted((folder / "train" / "cat").iterdir())[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_the_held_out_examples_stay_with_a_seed_of_their_own(folder: Path, images: Images) -> None:
    def held_out(seed: int, **data: object) -> list[str]:
        splits = load_dataset(images(folder / "train", **data), seed=seed).splits
        return [source for split in ("val", "test") for source in splits[split].sources]

    assert held_out(1) != held_out(2)
    assert held_out(1, split_seed=3) == held_out(2, split_seed=3) == held_out(3)


def test_unreadable_images_are_skipped_up_to_the_quota(folder: Path, images: Images) -> None:
    damage(folder, 3)

    dataset = load_dataset(images(folder, max_bad=0.05), seed=0)

    bad = dataset.report.to_dict()["bad"]
    assert (bad["count"], bad["share"]) == (3, 0.05)
    assert [item["where"] for item in bad["items"]] == [f"train/cat/00{i}.png" for i in range(3)]
    assert "can't be decoded" in bad["items"][0]["reason"]
    train = dataset.splits["train"]
    assert len(train.items) == len(train.labels) == len(train.sources) == 17
    assert train.sources[0] == "train/cat/003.png"


def test_past_the_quota_the_first_places_and_the_key_are_said(folder: Path, images: Images) -> None:
    damage(folder, 4)

    with pytest.raises(DataError, match=r"4 of 60 examples are bad.*data\.max_bad=0\.05.*cat/000.*cat/002.*raise"):
        load_dataset(images(folder, max_bad=0.05), seed=0)


def test_past_the_quota_all_are_listed_in_a_file(folder: Path, images: Images) -> None:
    damage(folder, 10)
    data = images(folder, max_bad=0.05)

    with pytest.raises(DataError, match=r"all are listed in .*bad_examples\.csv"):
        load_dataset(data, seed=0)
    assert len((Path(data.cache) / "bad_examples.csv").read_text().splitlines()) == 11


def test_a_class_that_is_never_measured_is_warned_of(folder: Path, images: Images) -> None:
    add = folder / "train" / "bird"
    shutil.copytree(folder / "train" / "cat", add)

    report = load_dataset(images(folder), seed=0).report
    assert "no example of 'bird'" in report.warnings[0]


def test_the_default_quota_of_few_examples_is_none(folder: Path, images: Images) -> None:
    damage(folder, 1)

    with pytest.raises(DataError, match="1 of 60 examples"):
        load_dataset(images(folder), seed=0)


def test_rows_of_a_table_that_name_no_file_are_bad(tmp_path: Path, images: Images, folder: Path) -> None:
    rows = [f"{split}/{name}/00{i}.png,{name}" for split in ("train", "val") for name in CLASSES for i in range(10)]
    (folder / "t.csv").write_text("\n".join(["image,label", *rows, "none.png,cat", "x.png,"]))

    dataset = load_dataset(images(folder / "t.csv", max_bad=0.1), seed=0)

    assert {bad.where for bad in dataset.report.bad} == {"t.csv:42", "t.csv:43"}
    assert any("No such file" in bad.reason and "none.png" in bad.reason for bad in dataset.report.bad)


def test_a_class_whose_training_images_are_all_bad_is_said(
    folder: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(folder / "train", {"cow": 2})
    damage(folder, 10)

    with pytest.raises(DataError, match="val split .* has classes that training lacks"):
        load_dataset(images(folder, max_bad=0.5), seed=0)


def test_the_report_lists_a_thousand_and_counts_all(tmp_path: Path, texts: Texts) -> None:
    rows = [f"text {i},{'ab'[i % 2]}" for i in range(40)] + [f"no label {i}," for i in range(1200)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))

    bad = load_dataset(texts(tmp_path / "t.csv", max_bad=0.99), seed=0).report.to_dict()["bad"]

    assert bad["count"] == 1200
    assert len(bad["items"]) == 1000
    json.dumps(bad)


def test_exact_copies_across_splits_are_counted_and_warned_of(folder: Path, images: Images) -> None:
    shutil.copy(folder / "train" / "cat" / "000.png", folder / "test" / "cat" / "copy.png")
    shutil.copy(folder / "val" / "dog" / "001.png", folder / "test" / "dog" / "copy.png")
    shutil.copy(folder / "val" / "dog" / "001.png", folder / "val" / "dog" / "same_split.png")

    report = load_dataset(images(folder), seed=0).report
    duplicates = report.to_dict()["duplicates"]

    assert duplicates["across_splits"] == 2
    assert ["train/cat/000.png", "test/cat/copy.png"] in duplicates["examples"]
    assert "2 examples are exact copies" in report.warnings[0]


def test_copies_among_texts_are_found_where_a_table_is_divided(tmp_path: Path, texts: Texts) -> None:
    rows = [f"text {i % 20},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))

    report = load_dataset(texts(tmp_path / "t.csv", val_fraction=0.3, test_fraction=0.3), seed=0).report

    assert report.duplicates.across_splits > 0


def test_the_fingerprint_follows_contents_and_labels_only(folder: Path, images: Images, tmp_path: Path) -> None:
    first = fingerprint(load_dataset(images(folder), seed=0))

    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved, copy_function=shutil.copy)
    (moved / "train" / "cat" / "000.png").rename(moved / "train" / "cat" / "zzz.png")
    os.utime(moved / "val" / "cat" / "000.png", (1, 1))
    assert fingerprint(load_dataset(images(moved), seed=5)) == first

    (moved / "train" / "cat" / "001.png").rename(moved / "train" / "dog" / "other.png")
    relabelled = fingerprint(load_dataset(images(moved), seed=0))
    shutil.copy(moved / "val" / "dog" / "001.png", moved / "val" / "dog" / "000.png")
    assert len({first, relabelled, fingerprint(load_dataset(images(moved), seed=0))}) == 3


def test_a_limit_reads_a_few_of_each_split(folder: Path, images: Images) -> None:
    dataset = load_dataset(images(folder, limit=6), seed=0)

    assert [np.bincount(records.labels).tolist() for records in dataset.splits.values()] == [[3, 3]] * 3


def test_a_limit_below_the_number_of_classes_is_allowed(folder: Path, images: Images) -> None:
    dataset = load_dataset(images(folder, limit=1), seed=0)

    assert dataset.classes == ("cat", "dog")
    assert [len(records) for records in dataset.splits.values()] == [1, 1, 1]


def test_the_quota_of_a_limited_trial_counts_what_it_read(folder: Path, images: Images) -> None:
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"damaged")

    with pytest.raises(DataError, match="2 of 6 examples are bad"):
        load_dataset(images(folder, limit=2, max_bad=0.3), seed=0)


def test_one_split_alone_is_taken_whole(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    records = load_split(texts(write_csv(tmp_path / "new.csv", 10)), classes=("z", "b", "a"))

    assert records.labels.tolist() == [2, 1] * 5
    assert records.sources[0] == "new.csv:2"
    assert len(load_split(texts(tmp_path / "new.csv", limit=4), classes=("a", "b"))) == 4


def test_the_test_split_is_taken_of_several(folder: Path, images: Images) -> None:
    records = load_split(images(folder), classes=("cat", "dog"))

    assert {source.split("/")[0] for source in records.sources} == {"test"}


def test_a_label_that_the_classifier_does_not_know_is_listed(folder: Path, images: Images) -> None:
    with pytest.raises(DataError, match="doesn't know: 'dog'; it knows 'cat', 'cow'"):
        load_split(images(folder), classes=("cat", "cow"))


def test_a_split_that_is_not_there_lists_those_that_are(folder: Path, images: Images) -> None:
    shutil.rmtree(folder / "test")

    with pytest.raises(DataError, match="no test split, it has train, val"):
        load_split(images(folder), classes=("cat", "dog"))


def test_bad_examples_count_in_one_split_too(folder: Path, images: Images, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (folder / "test" / "cat" / "000.png").write_bytes(b"")

    with pytest.raises(DataError, match="1 of 60"):
        load_split(images(folder), classes=("cat", "dog"))
    assert len(load_split(images(folder, max_bad=0.1), classes=("cat", "dog"))) == 19
    assert "test/cat/000.png" in caplog.text


def test_contradicting_labels_are_said_in_any_split(tmp_path: Path, texts: Texts) -> None:
    rows = [f"text {i},{'ab'[i % 2]}" for i in range(40)] + ["text 3,a", "Text  5.,b"]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))

    report = load_dataset(texts(tmp_path / "t.csv"), seed=0).report

    duplicates = report.to_dict()["duplicates"]
    assert duplicates["conflicting"]["count"] == 1
    assert set(duplicates["conflicting"]["examples"][0]) == {"t.csv:5", "t.csv:42"}
    assert duplicates["near"]["count"] == 1
    assert set(duplicates["near"]["examples"][0]) == {"t.csv:7", "t.csv:43"}
    assert any("1 example is a copy of an example with another label" in warning for warning in report.warnings)


def test_an_image_with_two_labels_is_said(folder: Path, images: Images) -> None:
    shutil.copy(folder / "train" / "cat" / "000.png", folder / "train" / "dog" / "copy.png")

    duplicates = load_dataset(images(folder), seed=0).report.duplicates

    assert duplicates.conflicting.examples == [["train/cat/000.png", "train/dog/copy.png"]]
    assert not duplicates.across_splits


def picture(number: int) -> Image.Image:
    """Blurred noise, as a photograph has its shades: no neighbours by chance."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("cache_gb", [None, 0])
def test_images_that_were_saved_again_are_said(tmp_path: Path, images: Images, cache_gb: float | None) -> None:
    folder = tmp_path / "pictures"
    for split in ("train", "val", "test"):
        (folder / split / "cat").mkdir(parents=True)
        (folder / split / "dog").mkdir()
        for i in range(6):
            picture(100 * len(split) + 10 * ord(split[0]) + i).save(folder / split / ("cat", "dog")[i % 2] / f"{i}.png")
    first = Image.open(folder / "train" / "cat" / "0.png")
    first.save(folder / "train" / "cat" / "rough.jpg", quality=60)
    first.save(folder / "val" / "cat" / "good.jpg", quality=90)
    first.resize((48, 48)).save(folder / "test" / "cat" / "small.png")
    for split in ("train", "test"):  # plain ones differ in what a glance doesn't see
        for i in range(5):
            Image.new("RGB", (96, 96), (250, 250, 250 - i)).save(folder / split / "dog" / f"plain{i}.png")

    for _ in range(2):  # told again when nothing is decoded
        report = load_dataset(images(folder, image_size=32, cache_gb=cache_gb), seed=0).report
        near = report.to_dict()["duplicates"]["near"]
        assert near["examples"][:3] == [
            ["train/cat/0.png", "train/cat/rough.jpg"],
            ["train/cat/0.png", "val/cat/good.jpg"],
            ["train/cat/0.png", "test/cat/small.png"],
        ]
        assert near["count"] == 3
        assert any("3 examples are near copies of another" in warning for warning in report.warnings)


def test_digits_of_few_pixels_are_no_copies(images: Images) -> None:
    assert not load_dataset(images("embedded:digits"), seed=0).report.duplicates.near.count


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_whole_numbers_are_one_class_in_every_format(tmp_path: Path, texts: Texts, name: str) -> None:
    frame = pd.DataFrame(
        {"text": [f"text {i}" for i in range(40)], "label": [None if i == 7 else i % 2 + 1 for i in range(40)]}
    )
    path = tmp_path / f"t.{name}"
    frame.to_csv(path, index=False) if name == "csv" else frame.to_parquet(path)

    config = texts(path, max_bad=0.5)
    assert load_dataset(config, seed=0).classes == ("1", "2")
    # A model that was sealed with the other form reads them, too.
    assert set(load_split(config, ("1.0", "2.0")).labels.tolist()) == {0, 1}


def test_numbers_with_fractions_stay_as_they_are(tmp_path: Path, texts: Texts) -> None:
    rows = [f"text {i},{i % 2 + 1}.{5 * (i % 2)}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))

    dataset = load_dataset(texts(tmp_path / "t.csv"), seed=0)

    assert dataset.classes == ("1.0", "2.5")
    assert any("look like amounts (regression)" in warning for warning in dataset.report.warnings)


def test_names_that_read_as_one_are_said(tmp_path: Path, texts: Texts) -> None:
    forms = ["yes", "Yes", "no", "caf\u00e9", "cafe\u0301", "ye\u200bs", " no\ufeff", "no\u00a0"]
    rows = [f"text {i},{forms[i % len(forms)]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")

    dataset = load_dataset(texts(tmp_path / "t.csv"), seed=0)

    assert dataset.classes == ("Yes", "café", "no", "yes")
    assert dataset.report.warnings[0] == (
        "classes that read as one are several: 'Yes' (10) and 'yes' (20); write them alike if they are meant to be one"
    )


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (lambda i: f"word {i}", "40 different labels in 40 rows.*is data.label=label right.*look like texts or names"),
        (lambda i: i * 1.7 + 0.1, r"look like numbers to be predicted \(regression\)"),
    ],
)
def test_the_wrong_column_of_labels_is_said(
    tmp_path: Path, texts: Texts, label: Callable[[int], object], sentence: str
) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *(f"text {i},{label(i)}" for i in range(40))]))

    with pytest.raises(DataError, match=sentence):
        load_dataset(texts(tmp_path / "t.csv"), seed=0)


def test_several_labels_in_one_are_said(tmp_path: Path, texts: Texts) -> None:
    forms = ["a", "b", '"a,b"', '"b, a"']
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *(f"text {i},{forms[i % 4]}" for i in range(80))]))

    warnings = load_dataset(texts(tmp_path / "t.csv"), seed=0).report.warnings

    assert "multi-label" in warnings[0]
