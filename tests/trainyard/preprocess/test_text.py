"""From texts to tokens, however odd they are, and what others ask of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from trainyard.base.errors import ItemError, UsageError
from trainyard.preprocess.base import Encoded, Item, load_sample
from trainyard.preprocess.text import TextPreprocessor


def word_tokenizer() -> Tokenizer:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "late": 2, "parcel": 3, "my": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_texts_are_padded_to_the_longest_and_masked() -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), max_length=3, segments=True)

    inputs = preprocessor.collate(preprocessor.encode_many(["late", "my parcel late my"]))

    assert inputs["input_ids"].tolist() == [[2, 0, 0], [4, 3, 2]]
    assert inputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_model_without_segments_gets_none() -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), max_length=8)

    assert set(preprocessor.collate([preprocessor.encode("late")])) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("item", ["", "  \n", ("", " "), b"bytes"])
def test_an_empty_text_is_an_item_error(item: str | bytes | tuple[str, str]) -> None:
    with pytest.raises(ItemError):
        TextPreprocessor(word_tokenizer(), 8).encode(item)


@pytest.mark.parametrize("item", ["my \ud83d parcel", ("my", "\udcff")])
def test_half_an_emoji_is_the_replacement_character(item: str | tuple[str, str]) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["\ufffd"])
    preprocessor = TextPreprocessor(tokenizer, 8)

    assert tokenizer.token_to_id("\ufffd") in preprocessor.encode(item)


@given(st.lists(st.text(st.characters(codec=None)).filter(str.strip), min_size=1, max_size=5))
def test_any_text_is_encoded_alike_alone_and_in_company(texts: list[str]) -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), 8)

    together = preprocessor.encode_many(texts)

    assert [row.tolist() for row in together] == [preprocessor.encode(text).tolist() for text in texts]


@pytest.mark.parametrize("item", ["a text", ("premise", "hypothesis")])
def test_texts_stand_in_the_line(tmp_path: Path, item: Item) -> None:
    stored = TextPreprocessor(word_tokenizer(), 8).store(item, tmp_path, "golden/0000")

    assert load_sample(stored, tmp_path) == item
    assert not list(tmp_path.iterdir())


def test_a_text_costs_its_characters() -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), max_length=3)
    assert [preprocessor.cost(item) for item in ("späte", ("ab", "c"), "", b"bytes")] == [5, 3, 0, 0]


def test_half_an_emoji_is_stored_as_the_model_sees_it(tmp_path: Path) -> None:
    for item, text in (("a \ud83d", "a \ufffd"), (("\ud83d", "b"), ["\ufffd", "b"])):
        stored = TextPreprocessor(word_tokenizer(), 8).store(item, tmp_path, "golden/0000")
        assert stored == {"text": text}


def word_level() -> models.Model:
    return models.WordLevel({"late": 0, "<unk>": 1}, unk_token="<unk>")


@pytest.mark.parametrize(
    ("model", "share"),
    [
        (word_level(), 0.5),
        (models.WordPiece({"[UNK]": 0, "late": 1}, unk_token="[UNK]"), 0.5),
        (models.BPE({"late": 0, "<unk>": 1}, [], unk_token="<unk>", ignore_merges=True), 0.5),
        (models.Unigram([("late", 0.0), ("<unk>", 0.0)], unk_id=1, byte_fallback=False), 0.5),
        (models.BPE({"late": 0, "n": 1, "[UNK]": 2}, [], ignore_merges=True), None),
    ],
)
def test_unknown_words_are_counted_by_any_model_of_tokens(model: models.Model, share: float | None) -> None:
    """Each calls its token for them as it likes; the last, as those of bytes do, has none."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    preprocessor = TextPreprocessor(tokenizer, 8)

    measures = preprocessor.measures(preprocessor.encode("late n"))

    assert measures == ({"length": 2} if share is None else {"length": 2, "unknown": share})


def tokens(*lengths: int) -> list[Encoded]:
    return [np.arange(1, length + 1, dtype=np.int32)[None] for length in lengths]


def test_what_is_padded_reaches_from_the_shortest_text_to_the_longest_and_is_masked() -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), 20, pad_id=9, segments=True)

    paddings = list(preprocessor.paddings(tokens(3, 16, 1, 20)))

    assert [(i, inputs["input_ids"].shape[1]) for i, inputs in paddings] == [
        (2, 16),
        (0, 16),
        (2, 20),
        (0, 20),
        (1, 20),
    ]
    for i, inputs in paddings:
        length = (3, 16, 1, 20)[i]
        assert inputs["input_ids"][0, length:].tolist() == [9] * (inputs["input_ids"].shape[1] - length)
        assert inputs["attention_mask"].sum() == length
        assert inputs["token_type_ids"].sum() == 0


def test_texts_are_cut_to_the_median_and_the_shorter_left_out() -> None:
    cut = TextPreprocessor(word_tokenizer(), 20).of_one_shape(tokens(2, 5, 9))

    assert [row.tolist() for row in cut] == [[[1, 2, 3, 4, 5]]] * 2


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [101]), (2, [101, 102]), (3, [101, 1, 102]), (5, [101, 1, 2, 3, 102]), (8, [101, 1, 2, 3, 1, 2, 3, 102])],
)
def test_a_text_is_brought_to_a_length_between_its_marks(length: int, expected: list[int]) -> None:
    row = np.array([[101, 1, 2, 3, 102], [0, 0, 0, 1, 1]], np.int32)

    (changed,) = TextPreprocessor(word_tokenizer(), 8, segments=True).with_length([row], length)

    assert changed[0].tolist() == expected
    assert changed.shape == (2, length)
    assert changed.dtype == np.int32


def test_a_text_of_one_or_two_tokens_grows_too() -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), 8)
    grown = preprocessor.with_length([np.array([[7]], np.int32), np.array([[7, 9]], np.int32)], 4)

    assert [row.tolist() for row in grown] == [[[7, 7, 7, 7]], [[7, 7, 9, 9]]]


@pytest.mark.parametrize("length", [0, 9])
def test_a_length_that_no_text_has_is_refused_without_texts(length: int) -> None:
    with pytest.raises(UsageError, match=f"--length={length}: this model takes 1 to 8 tokens"):
        TextPreprocessor(word_tokenizer(), 8).with_length([], length)


@pytest.mark.parametrize("segments", [False, True])
def test_synthetic_texts_are_of_the_vocabulary_and_no_longer_than_the_model_takes(segments: bool) -> None:
    preprocessor = TextPreprocessor(word_tokenizer(), 16, segments=segments)

    texts = np.stack(preprocessor.synthetic(3, np.random.default_rng(0)))

    assert texts.shape == (3, 2 if segments else 1, 16)
    assert set(texts[:, 0].flat) == {0, 1, 2, 3, 4}
    assert not texts[:, 1:].any()
