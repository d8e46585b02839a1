"""Layouts of folders: classes, splits, tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.sources import read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]


@pytest.mark.parametrize("val_name", ["val", "valid", "Validation", "dev"])
def test_a_folder_per_split_and_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None], val_name: str
) -> None:
    for split in ("train", val_name, "test"):
        write_images(tmp_path / "d" / split, {"cat": 1, "dog": 2})

    found = read_source(images(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert found.splits["train"].labels == ["cat", "dog", "dog"]
    assert found.splits["val"].sources[0] == f"{val_name}/cat/000.png"


def test_a_folder_per_class_is_undivided(tmp_path: Path, images: Images, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "d", {"cat": 1, "train": 2})

    found = read_source(images(tmp_path / "d"))

    assert found.splits["train"].labels == ["cat", "train", "train"], "a class may be called train"
    assert set(found.splits) == {"train"}


@pytest.mark.parametrize("strays", [("train",), ("train", "test")])
def test_a_stray_image_does_not_turn_a_split_into_a_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None], strays: tuple[str, ...]
) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "d" / split, {"cat": 1, "dog": 2})
    for split in strays:
        shutil.copy(tmp_path / "d" / split / "cat" / "000.png", tmp_path / "d" / split / "montage.png")

    found = read_source(images(tmp_path / "d"))

    assert {split: rows.labels for split, rows in found.splits.items()} == {
        "train": ["cat", "dog", "dog"],
        "test": ["cat", "dog", "dog"],
    }
    assert len(found.warnings) == len(strays)
    for split, warning in zip(sorted(strays), found.warnings, strict=True):
        assert f"1 images lie beside the folders of the classes and aren't used (the first: {split}/mon" in warning


def test_a_class_called_as_a_split_may_hold_folders_without_images(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d", {"cat": 1, "train": 2})
    (tmp_path / "d" / "train" / "notes").mkdir()

    assert read_source(images(tmp_path / "d")).splits["train"].labels == ["cat", "train", "train"]


def test_a_table_beside_its_images_makes_a_split(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "d", {split: 2})
        (tmp_path / "d" / split / "labels.csv").write_text("image,label\n000.png,cat\n001.png,dog\n")

    found = read_source(images(tmp_path / "d"))

    assert {split: rows.labels for split, rows in found.splits.items()} == {
        "train": ["cat", "dog"],
        "test": ["cat", "dog"],
    }


@pytest.mark.parametrize("target", [".", "..", "../../pets"])
def test_a_link_back_does_not_multiply_the_images(
    tmp_path: Path, images: Images, write_images: Callable[..., None], target: str
) -> None:
    write_images(tmp_path / "pets", {"cat": 2, "dog": 1})
    (tmp_path / "pets" / "cat" / "back").symlink_to(target)

    assert read_source(images(tmp_path / "pets")).splits["train"].labels == ["cat", "cat", "dog"]


def test_links_to_images_elsewhere_are_followed_once(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "pets", {"cat": 1, "dog": 1})
    write_images(tmp_path, {"more": 2})
    for name in ("more", "again"):
        (tmp_path / "pets" / "cat" / name).symlink_to(tmp_path / "more")

    assert read_source(images(tmp_path / "pets")).splits["train"].labels == ["cat", "cat", "cat", "dog"]


def test_files_may_be_nested_hidden_or_of_other_kinds(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d" / "cat", {"2024/may": 1, ".trash": 1})
    write_images(tmp_path / "d", {"dog": 1})
    (tmp_path / "d" / "dog" / "000.png").rename(tmp_path / "d" / "dog" / "A.JPeG")
    (tmp_path / "d" / "dog" / "._A.jpg").write_bytes(b"")
    (tmp_path / "d" / "dog" / "notes.txt").write_text("hello")

    found = read_source(images(tmp_path / "d"))

    assert found.splits["train"].sources == ["cat/2024/may/000.png", "dog/A.JPeG"]
    assert len(found.warnings) == 1
    assert "1 files aren't images" in found.warnings[0]
    assert "(the first: dog/notes.txt)" in found.warnings[0], "no absolute path: the model card shows it"


def test_a_split_that_is_there_twice_is_an_error(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for split in ("train", "val", "dev"):
        write_images(tmp_path / "d" / split, {"cat": 1})

    with pytest.raises(DataError, match="val split twice: dev, val"):
        read_source(images(tmp_path / "d"))


@pytest.mark.parametrize(
    "names", [("train.csv", "dev.csv", "test.csv"), ("train/a.csv", "validation/a.csv", "test/a.csv")]
)
def test_a_table_or_a_folder_of_tables_per_split(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path], names: tuple[str, ...]
) -> None:
    for count, name in enumerate(names, start=2):
        write_csv(tmp_path / "d" / name, count)

    found = read_source(texts(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2, "val": 3, "test": 4}
    assert found.splits["val"].sources[0] == f"{names[1]}:2"


def test_parts_of_one_split_are_joined(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    for part in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_csv(tmp_path / "d" / f"{part}.csv", 2)

    found = read_source(texts(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "test": 2}


def test_what_belongs_to_no_split_is_left_out_with_a_warning(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    for name in ("train.csv", "train_old.csv", "sample.csv"):
        write_csv(tmp_path / "d" / name, 2)

    found = read_source(texts(tmp_path / "d"))

    assert len(found.splits["train"]) == 2
    assert "(sample.csv, train_old.csv)" in found.warnings[0]
    assert str(tmp_path) not in found.warnings[0], "the model card shows it"


def test_tables_without_split_names_are_one_undivided_table(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    for name in ("may.csv", "june.csv"):
        write_csv(tmp_path / "d" / name, 3)

    assert len(read_source(texts(tmp_path / "d")).splits["train"]) == 6


def test_a_folder_without_data_says_what_it_may_hold(tmp_path: Path, images: Images, texts: Texts) -> None:
    (tmp_path / "d").mkdir()

    with pytest.raises(DataError, match="<split>/<class>/file"):
        read_source(images(tmp_path / "d"))
    with pytest.raises(DataError, match=r"tables \(\.csv"):
        read_source(texts(tmp_path / "d"))
