"""What ``data.path`` may say, and what a wrong one is answered."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.sources import location, read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]


def test_digits_are_the_real_ones(images: Images) -> None:
    rows = read_source(images("embedded:digits")).splits["train"]

    assert len(rows) == 1797
    assert sorted(set(rows.labels)) == [str(digit) for digit in range(10)]
    assert isinstance(rows.items[0], bytes)
    pixels = np.asarray(Image.open(io.BytesIO(rows.items[0])))
    assert pixels.shape == (8, 8)
    assert (pixels.min(), pixels.max()) == (0, 239)  # 15 of 16


def plain_letters(text: str) -> str:
    """Letters and digits: a ticket without its apostrophe and capitals is the same ticket."""
    return "".join(filter(str.isalnum, text.casefold()))


def test_tickets_have_four_classes_and_a_test_split_of_their_own(texts: Texts) -> None:
    found = read_source(texts("embedded:tickets"))

    assert set(found.splits) == {"train", "test"}
    assert sum(len(rows) for rows in found.splits.values()) >= 1000
    assert len(set(found.splits["train"].labels)) == 4
    assert set(found.splits["train"].labels) == set(found.splits["test"].labels)
    assert not found.bad
    items = [item for rows in found.splits.values() for item in rows.items]
    assert len(set(items)) == len(items), "each ticket is different"
    train, test = ([plain_letters(str(item)) for item in found.splits[split].items] for split in ("train", "test"))
    assert len(set(test)) == len(test)
    assert not set(test) & set(train), "a test ticket isn't one of training in other spelling"


def test_embedded_data_of_the_other_kind_or_of_no_name_say_so(images: Images, texts: Texts) -> None:
    with pytest.raises(UsageError, match=r"data\.kind=texts"):
        read_source(images("embedded:tickets"))
    with pytest.raises(UsageError, match="embedded:digits, embedded:tickets"):
        read_source(texts("embedded:ticket"))


def test_a_missing_path_suggests_what_is_near(tmp_path: Path, images: Images) -> None:
    (tmp_path / "flowers").mkdir()

    with pytest.raises(UsageError, match=rf"did you mean {tmp_path}/flowers\?.*embedded:digits.*hub:ID"):
        read_source(images(tmp_path / "flower" / "train"))


def test_the_name_of_an_embedded_dataset_suggests_it(texts: Texts) -> None:
    with pytest.raises(UsageError, match="embedded:tickets\\?"):
        read_source(texts("tickets"))


@pytest.mark.parametrize(("name", "answer"), [("one.jpg", "one image"), ("notes.docx", "no table")])
def test_a_file_of_the_wrong_kind_says_so(tmp_path: Path, images: Images, name: str, answer: str) -> None:
    (tmp_path / name).write_bytes(b"x")

    with pytest.raises(UsageError, match=answer):
        read_source(images(tmp_path / name))


def test_a_subset_is_for_the_hub(tmp_path: Path, texts: Texts) -> None:
    with pytest.raises(UsageError, match=r"data\.subset=sst2 is for hub datasets"):
        read_source(texts(tmp_path, subset="sst2"))


def test_locations_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)

    assert location("d") == str(tmp_path / "d")
    assert location("hub:d") == f"hub:{tmp_path / 'd'}"
    assert location("hub:ag_news") == "hub:ag_news"
    assert location("embedded:digits") == "embedded:digits"
