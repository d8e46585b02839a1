"""Records become batches: from the cached pixels, from files, from cached token ids."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data import encoded
from trainyard.data.encoded import encode_split, loader_workers
from trainyard.data.load import load_dataset
from trainyard.data.records import Records
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]


def word_preprocessor(max_length: int = 8, segments: bool = True) -> TextPreprocessor:
    words = ["[PAD]", "[UNK]", "text", *map(str, range(20))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextPreprocessor(tokenizer, max_length, segments=segments)


def text_records(*items: str | tuple[str, str]) -> Records:
    return Records(items, np.arange(len(items)), [f"t:{i}" for i in range(len(items))])


@pytest.fixture
def folder(tmp_path: Path, write_images: Callable[..., None]) -> Path:
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    return tmp_path / "pets"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cache_gb", [1, 0])
def test_images_are_alike_from_cache_and_files(folder: Path, images: Images, cache_gb: int, training: bool) -> None:
    data = images(folder, resize=11, cache_gb=cache_gb)
    preprocessor = ImagePreprocessor(size=data.image_size, resize=data.resize_to)
    records = load_dataset(data, seed=0).splits["train"]

    split = encode_split(records, preprocessor, data, training=training)
    batch = split.batch([3, 1])["images"]

    assert (split.image_bytes is None) == (not cache_gb)
    assert len(split) == 16
    assert split.lengths is None
    encode = preprocessor.encode_wide if training else preprocessor.encode
    np.testing.assert_array_equal(
        batch, preprocessor.collate([encode(records.items[3]), encode(records.items[1])])["images"]
    )
    assert batch.shape[2:] == ((11, 11) if training else (8, 8))


def test_the_cache_of_another_preprocessor_is_not_used(folder: Path, images: Images) -> None:
    data = images(folder)
    records = load_dataset(data, seed=0).splits["test"]

    split = encode_split(records, ImagePreprocessor(size=5, resize=6), data, training=False)

    assert split.batch([0])["images"].shape == (1, 3, 5, 5)


def test_an_image_that_goes_bad_while_streaming_is_named(folder: Path, images: Images) -> None:
    data = images(folder, cache_gb=0)
    records = load_dataset(data, seed=0).splits["train"]
    split = encode_split(records, ImagePreprocessor(8, 8), data, training=True)
    (folder / records.sources[2]).write_bytes(b"")

    with pytest.raises(DataError, match=rf"{records.sources[2]} changed since"):
        split.batch([1, 2])


def test_texts_are_encoded_as_one_by_one(texts: Texts) -> None:
    preprocessor = word_preprocessor()
    records = text_records("text 1 2", ("text", "3 4 5"), "19 " * 30)

    split = encode_split(records, preprocessor, texts("t.csv"), training=True)

    assert split.lengths is not None
    assert split.lengths.tolist() == [3, 4, 8]
    expected = preprocessor.collate(preprocessor.encode_many([records.items[1], records.items[0]]))
    for name, values in split.batch([1, 0]).items():
        np.testing.assert_array_equal(values, expected[name])


def test_texts_are_tokenised_once_for_their_content_and_tokenizer(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = texts("t.csv")
    calls: list[int] = []
    encode_many = TextPreprocessor.encode_many
    monkeypatch.setattr(
        TextPreprocessor, "encode_many", lambda self, items: calls.append(1) or encode_many(self, items)
    )

    def encode(*items: str | tuple[str, str], **settings: int) -> int:
        encode_split(text_records(*items), word_preprocessor(**settings), data, training=True)
        return len(calls)

    assert encode("text 1", "text 2") == 1
    assert encode("text 1", "text 2") == 1, "the same texts, wherever they are from"
    assert encode("text 1", "text 3") == 2
    assert encode("text 1", "text 3", max_length=5) == 3, "data.max_length counts"
    assert encode("text 1", "text 3", segments=False) == 4
    assert encode(("text", "1 2")) == 5
    assert encode(("text 1", "2")) == 6, "pairs are told apart"
    assert len([path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir()]) == 6


def test_many_texts_are_tokenised_in_chunks(
    texts: Texts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(encoded, "CHUNK", 3)
    records = text_records(*[f"text {i}" * (1 + i % 3) for i in range(8)])
    preprocessor = word_preprocessor()

    split = encode_split(records, preprocessor, texts("t.csv"), training=True)

    expected = preprocessor.collate(preprocessor.encode_many(records.items))["input_ids"]
    np.testing.assert_array_equal(split.batch(range(8))["input_ids"], expected)
    assert "tokenised 8 of 8 texts" in caplog.text


def test_max_length_cuts_texts(texts: Texts, tmp_path: Path) -> None:
    data = texts("t.csv", max_length=4)

    split = encode_split(text_records("text " * 9), word_preprocessor(data.max_length), data, training=False)

    assert split.batch([0])["input_ids"].shape == (1, 4)


def test_workers_are_for_what_takes_time(
    folder: Path, images: Images, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(**keys: object) -> int:
        data = images(folder, **keys)
        records = load_dataset(data, seed=0).splits["train"]
        preprocessor = ImagePreprocessor(data.image_size, data.resize_to)
        return loader_workers(encode_split(records, preprocessor, data, training=True), data)

    monkeypatch.setattr("trainyard.data.encoded.available_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert workers() == 0
    assert workers(batch_size=20_000) == 1
    assert workers(cache_gb=0) == 4
    assert workers(cache_gb=0, workers=3) == 3
    data = texts("t.csv")
    assert loader_workers(encode_split(text_records("text"), word_preprocessor(), data, training=True), data) == 0
