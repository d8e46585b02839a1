"""Layouts that public datasets have, as small copies: each is read as a person means it, or refused with a way out."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.records import Found
from trainyard.data.sources import read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]

_numbers = itertools.count()


def photos(folder: Path, *names: str) -> None:
    """Writes images of random pixels."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(next(_numbers)).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def texts_in(folder: Path, **files: str) -> None:
    for name, text in files.items():
        write(folder / f"{name}.txt", text)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def shape(found: Found) -> dict[str, dict[str, int]]:
    """How many examples of each class each split has."""
    return {
        split: {label: list(rows.labels).count(label) for label in sorted(set(rows.labels))}
        for split, rows in found.splits.items()
    }


def read(data: Callable[..., ImagesConfig] | Callable[..., TextsConfig], folder: Path, **keys: object) -> Found:
    """Reads a folder, by its path and as ``hub:FOLDER`` alike."""
    found = read_source(data(folder, **keys))
    assert shape(read_source(data(f"hub:{folder}", **keys))) == shape(found)
    assert not any(str(folder) in warning for warning in found.warnings), "the model card shows them to strangers"
    return found


def test_intel_image_classification(tmp_path: Path, images: Images) -> None:
    for split in ("seg_train", "seg_test"):
        photos(tmp_path / split / split, "forest/1.jpg", "forest/2.jpg", "sea/1.jpg")
    photos(tmp_path / "seg_pred" / "seg_pred", "10004.jpg", "10005.jpg")

    found = read(images, tmp_path)

    assert shape(found) == {split: {"forest": 2, "sea": 1} for split in ("train", "test")}
    assert "(seg_pred)" in found.warnings[0]


def test_dogs_and_cats_with_the_class_in_the_file_name(tmp_path: Path, images: Images) -> None:
    photos(tmp_path / "train", "cat.0.jpg", "cat.1.jpg", "dog.0.jpg")
    photos(tmp_path / "test1", "1.jpg", "2.jpg")

    with pytest.raises(DataError, match=r"images without classes in test1, train: put them into .*train\.csv"):
        read(images, tmp_path)

    write(tmp_path / "train.csv", "image,label\ntrain/cat.0.jpg,cat\ntrain/cat.1.jpg,cat\ntrain/dog.0.jpg,dog\n")
    assert shape(read_source(images(tmp_path))) == {"train": {"cat": 2, "dog": 1}}


def test_dogs_and_cats_in_folders(tmp_path: Path, images: Images) -> None:
    for split in ("training_set", "test_set"):
        photos(tmp_path / split / split, "cats/cat.1.jpg", "dogs/dog.1.jpg")
        write(tmp_path / split / split / "_DS_Store", "")

    assert shape(read(images, tmp_path)) == {split: {"cats": 1, "dogs": 1} for split in ("train", "test")}


def test_cub_200(tmp_path: Path, images: Images) -> None:
    photos(tmp_path / "images", *(f"{bird}/{bird}_{i}.jpg" for bird in ("001.Auk", "002.Wren") for i in range(2)))
    for name in ("images", "classes", "train_test_split", "attributes/attributes"):
        write(tmp_path / f"{name}.txt", "1 001.Auk\n")

    with pytest.raises(DataError, match=rf"did you mean data\.path={tmp_path}/images\?"):
        read(images, tmp_path)

    assert shape(read(images, tmp_path / "images")) == {"train": {"001.Auk": 2, "002.Wren": 2}}


def test_food_101(tmp_path: Path, images: Images) -> None:
    photos(tmp_path / "images", "pizza/1.jpg", "pizza/2.jpg", "soup/1.jpg")
    for name in ("train.txt", "test.txt", "classes.txt", "train.json"):
        write(tmp_path / "meta" / name, "")

    with pytest.raises(DataError, match=rf"did you mean data\.path={tmp_path}/images\?"):
        read(images, tmp_path)

    assert shape(read(images, tmp_path / "images")) == {"train": {"pizza": 2, "soup": 1}}


def test_oxford_pets(tmp_path: Path, images: Images) -> None:
    names = ("Abyssinian_1", "Abyssinian_2", "beagle_1")
    photos(tmp_path / "images", *(f"{name}.jpg" for name in names))
    photos(tmp_path / "annotations" / "trimaps", *(f"{name}.png" for name in names))
    write(tmp_path / "annotations" / "trainval.txt", "Abyssinian_1 1 1 1\n")

    with pytest.raises(DataError, match=r"images without classes in annotations, images: .* in a table"):
        read(images, tmp_path)

    write(tmp_path / "pets.csv", "path,class\n" + "".join(f"images/{n}.jpg,{n.rpartition('_')[0]}\n" for n in names))
    found = read_source(images(tmp_path, image="path", label="class"))
    assert shape(found) == {"train": {"Abyssinian": 2, "beagle": 1}}


def test_aclimdb(tmp_path: Path, texts: Texts) -> None:
    for split in ("train", "test"):
        texts_in(tmp_path / split / "pos", **{"0_9": "a film to love", "1_8": "splendid"})
        texts_in(tmp_path / split / "neg", **{"0_2": "a film to forget"})
        texts_in(tmp_path / split, urls_pos="made-up", urls_neg="made-up")
        write(tmp_path / split / "labeledBow.feat", "9 0:1\n")
    texts_in(tmp_path / "train" / "unsup", **{"0_0": "a film"})
    write(tmp_path / "README", "words")

    found = read(texts, tmp_path)

    assert shape(found) == {split: {"neg": 1, "pos": 2} for split in ("train", "test")}
    assert found.splits["test"].items == ["a film to forget", "a film to love", "splendid"]
    assert found.splits["test"].sources[0] == "test/neg/0_2.txt"
    assert any("no label, by their names, and aren't used (train/unsup)" in text for text in found.warnings)


def test_20_newsgroups(tmp_path: Path, texts: Texts) -> None:
    for split in ("20news-bydate-train", "20news-bydate-test"):
        write(tmp_path / split / "sci.space" / "59497", "From: somebody\n\norbits\n")
        (tmp_path / split / "rec.autos").mkdir()
        (tmp_path / split / "rec.autos" / "101551").write_bytes("Fahrvergnügen\n".encode("latin-1"))

    found = read(texts, tmp_path)

    assert shape(found) == {split: {"rec.autos": 1, "sci.space": 1} for split in ("train", "test")}
    assert found.splits["train"].items[0] == "Fahrvergnügen\n"


def test_roboflow(tmp_path: Path, images: Images) -> None:
    for split in ("train", "valid", "test"):
        photos(tmp_path / split, "ripe/a_jpg.rf.1.jpg", "unripe/b_jpg.rf.2.jpg")
    for name in ("README.roboflow.txt", "README.dataset.txt"):
        write(tmp_path / name, "words")

    found = read(images, tmp_path)

    assert shape(found) == {split: {"ripe": 1, "unripe": 1} for split in ("train", "val", "test")}
    assert not found.warnings


def test_a_zip_of_a_mac(tmp_path: Path, images: Images) -> None:
    for split, form in (("train", "NFD"), ("test", "NFC")):
        name = unicodedata.normalize(form, "café")  # type: ignore[arg-type]
        photos(tmp_path / split, f"{name}/1.jpg", "dog/1.jpg")
        write(tmp_path / "__MACOSX" / split / name / "._1.jpg", "resource fork")
        write(tmp_path / split / name / "._1.jpg", "resource fork")
        write(tmp_path / split / ".DS_Store", "")

    found = read(images, tmp_path)

    assert shape(found) == {split: {unicodedata.normalize("NFC", "café"): 1, "dog": 1} for split in ("train", "test")}
    assert not found.warnings
