"""Hugging Face datasets, from local folders and from a hub that can't be reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.load import load_dataset
from trainyard.data.records import LazyItems
from trainyard.data.sources import read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def image_dataset(count: int, label: int | None = None) -> datasets.Dataset:
    random = np.random.default_rng(count)
    pictures = [Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    labels = [i % 2 if label is None else label for i in range(count)]
    return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)


def test_texts_in_the_layout_of_the_hub(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    for name, count in {"train": 20, "validation": 4, "test": 6}.items():
        write_csv(tmp_path / "set" / f"{name}.csv", count, name)

    dataset = load_dataset(texts(f"hub:{tmp_path / 'set'}"), seed=0)

    assert {split: len(records) for split, records in dataset.splits.items()} == {"train": 20, "val": 4, "test": 6}
    assert dataset.splits["val"].items[0] == "validation 0"
    assert dataset.splits["val"].sources[0] == "val:0"
    assert dataset.location == f"hub:{tmp_path / 'set'}"
    assert (tmp_path / "cache" / "hub").is_dir(), "prepared below data.cache"


def test_images_of_a_saved_dataset_are_read_when_asked_for(tmp_path: Path, images: Images) -> None:
    saved = datasets.DatasetDict(train=image_dataset(20), test=image_dataset(3, -1), extra=image_dataset(2))
    saved.save_to_disk(str(tmp_path / "set"))

    dataset = load_dataset(images(f"hub:{tmp_path / 'set'}"), seed=0)

    train = dataset.splits["train"]
    assert dataset.classes == ("cat", "dog"), "names of the label, not its numbers"
    assert isinstance(train.items, LazyItems)
    assert isinstance(train.items[0], bytes)
    assert {split: len(records) for split, records in dataset.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert [warning.split()[1] for warning in dataset.report.warnings][:1] == ["test"], "its labels are hidden (-1)"
    assert "extra" in dataset.report.warnings[1]
    assert train.decoded is not None
    expected = train.decoded.preprocessor.encode_wide(train.items[4])
    np.testing.assert_array_equal(train.decoded.pixels()[train.decoded.rows[4]], expected)


def test_a_saved_single_dataset_is_undivided(tmp_path: Path, images: Images) -> None:
    image_dataset(8).save_to_disk(str(tmp_path / "set"))

    found = read_source(images(f"hub:{tmp_path / 'set'}", image=0, label=1))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 8}
    assert list(found.splits["train"].items[2:4]) == [found.splits["train"].items[2], found.splits["train"].items[3]]


def test_a_folder_of_images_in_the_layout_of_the_hub(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "set" / split, {"cat": 3, "dog": 3})

    found = read_source(images(f"hub:{tmp_path / 'set'}"))

    assert sorted(found.splits["test"].labels) == ["cat"] * 3 + ["dog"] * 3
    assert found.splits["test"].items[0] == tmp_path / "set" / "test" / "cat" / "000.png"


def test_a_subset_is_chosen_by_name(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    write_csv(tmp_path / "set" / "one" / "train.csv", 4)
    write_csv(tmp_path / "set" / "two" / "train.csv", 6)
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: one\n  data_files: one/train.csv\n"
        "- config_name: two\n  data_files: two/train.csv\n---\n"
    )

    assert len(read_source(texts(f"hub:{tmp_path / 'set'}", subset="two")).splits["train"]) == 6
    with pytest.raises(DataError, match=r"data\.subset=three can't be loaded.*one"):
        read_source(texts(f"hub:{tmp_path / 'set'}", subset="three"))


def test_a_column_that_is_not_there_lists_those_that_are(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    write_csv(tmp_path / "set" / "train.csv", 4)

    with pytest.raises(DataError, match="no column 'sentence', it has 'text', 'label'"):
        read_source(texts(f"hub:{tmp_path / 'set'}", text="sentence"))


def test_a_hub_out_of_reach_is_one_sentence(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **keys: object) -> None:
        raise ConnectionError("Couldn't reach 'some/set' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)

    with pytest.raises(DataError, match=r"data\.path=hub:some/set .* can't be reached .* hub:FOLDER"):
        read_source(texts("hub:some/set"))


def test_labels_that_pandas_takes_for_missing_are_labels(tmp_path: Path, texts: Texts) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    names = ("NA", "None", "null", "nan")
    rows = [f"text {i},{names[i % 4]}" for i in range(40)] + ["null,NA"]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]))

    by_hub = read_source(texts(f"hub:{folder}"))
    own = read_source(texts(folder))

    assert set(by_hub.splits["train"].labels) == set(names)
    assert by_hub.splits["train"].items == own.splits["train"].items
    assert by_hub.splits["train"].labels == own.splits["train"].labels
    assert not by_hub.bad


def test_a_table_beside_images_does_no_harm(tmp_path: Path, images: Images, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "set", {"cat": 10, "dog": 10})
    (tmp_path / "set" / "notes.csv").write_text("day,rain\n1,no\n")

    assert load_dataset(images(f"hub:{tmp_path / 'set'}"), seed=0).classes == ("cat", "dog")
