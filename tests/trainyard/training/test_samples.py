"""What the bundle carries of the data: a few examples of every class, small enough to be carried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from trainyard.artifacts.samples import load_sample
from trainyard.data.records import Records
from trainyard.preprocess.preprocessor import ImagePreprocessor, Item, TextPreprocessor
from trainyard.training import samples
from trainyard.training.samples import MAX_SAMPLE_BYTES, choose


def records(*counts: int, items: list[Item] | None = None) -> Records:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Records(items if items is not None else ["text"] * len(labels), labels, [""] * len(labels))


@pytest.mark.parametrize("count", [3, 10, 50])
def test_every_class_is_chosen_however_rare(count: int) -> None:
    split = records(5000, 100, 1)

    chosen = choose(split, count, seed=0)

    assert set(split.labels[chosen].tolist()) == {0, 1, 2}
    assert len(set(chosen.tolist())) == count


def test_the_choice_follows_from_the_seed_and_is_spread() -> None:
    split = records(1000, 1000)

    first, again, other = (choose(split, 40, seed).tolist() for seed in (0, 0, 1))

    assert first == again
    assert first != other
    assert np.bincount(split.labels[first]).tolist() == [20, 20]
    assert max(first) - min(first) > 1000, "not the first ones"


def test_small_splits_are_chosen_whole() -> None:
    assert sorted(choose(records(2, 1), 128, seed=0).tolist()) == [0, 1, 2]


def noise(path: Path, side: int) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_large_image_is_stored_as_the_preprocessor_sees_it(tmp_path: Path) -> None:
    large = noise(tmp_path / "large.png", 400)
    preprocessor = ImagePreprocessor(size=32, resize=40)
    assert large.stat().st_size > MAX_SAMPLE_BYTES

    stored = samples._store(tmp_path / "samples", "golden", 7, large, preprocessor)

    file = tmp_path / "samples" / "golden" / "0007.png"
    assert stored == {"image": "golden/0007.png"}
    assert file.stat().st_size < 10_000
    loaded = load_sample(tmp_path / "samples", stored)
    np.testing.assert_array_equal(preprocessor.encode(loaded), preprocessor.encode(large))


def test_a_small_image_is_stored_as_it_is(tmp_path: Path) -> None:
    small = noise(tmp_path / "small.jpeg", 20)

    for item in (small, small.read_bytes()):
        stored = samples._store(tmp_path / "samples", "calibration", 0, item, ImagePreprocessor(size=8, resize=8))
        assert stored == {"image": "calibration/0000.jpeg"}
        assert load_sample(tmp_path / "samples", stored) == small.read_bytes()


@pytest.mark.parametrize("item", ["a text", ("premise", "hypothesis")])
def test_texts_stand_in_the_line(tmp_path: Path, item: Item) -> None:
    stored = samples._store(tmp_path, "golden", 0, item, ImagePreprocessor(size=8, resize=8))

    assert load_sample(tmp_path, stored) == item
    assert not list(tmp_path.iterdir())


def test_half_an_emoji_is_stored_as_the_model_sees_it(tmp_path: Path) -> None:
    for item, text in (("a \ud83d", "a \ufffd"), (("\ud83d", "b"), ["\ufffd", "b"])):
        stored = samples._store(tmp_path, "golden", 0, item, ImagePreprocessor(size=8, resize=8))
        assert stored == {"text": text}


@pytest.mark.parametrize("unknown_id", [0, 1])
def test_unknown_words_are_counted_whatever_their_id(unknown_id: int) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": unknown_id, "late": 1 - unknown_id}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    statistics = samples._input_statistics(["late never never late"], TextPreprocessor(tokenizer, 8))

    assert statistics["unknown_share"] == 0.5
