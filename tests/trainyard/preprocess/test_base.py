"""What is sealed of a preprocessor, and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from trainyard.base.errors import BundleError
from trainyard.preprocess.base import load_preprocessor, load_sample
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor


def test_both_kinds_survive_saving(tmp_path: Path) -> None:
    image = ImagePreprocessor(16, 20)
    assert load_preprocessor(image.to_dict(), tmp_path) == image

    text = TextPreprocessor(Tokenizer(models.WordLevel({"my": 0, "parcel": 1})), 5, pad_id=0, segments=True)
    text.save(tmp_path)
    loaded = load_preprocessor(text.to_dict(), tmp_path)
    assert loaded.encode("my").tolist() == text.encode("my").tolist()

    with pytest.raises(BundleError, match="unknown kind"):
        load_preprocessor({"kind": "audio"}, tmp_path)


def test_a_bundle_without_a_later_key_keeps_the_old_behaviour(tmp_path: Path) -> None:
    """These are the keys of the first release. A setting that is added has a default that means what was before it."""
    assert load_preprocessor({"kind": "image", "size": 8, "resize": 9}, tmp_path) == ImagePreprocessor(8, 9, 50_000_000)

    Tokenizer(models.WordLevel({"my": 0})).save(str(tmp_path / "tokenizer.json"))
    text = load_preprocessor({"kind": "text", "max_length": 5}, tmp_path)
    assert text.to_dict() == {"kind": "text", "max_length": 5, "pad_id": 0, "segments": False}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"size": 8, "resize": 9, "mean": 0.5}, "with the unknown setting 'mean'; update trainyard"),
        ({"size": 8}, "without the setting 'resize'"),
    ],
)
def test_no_setting_is_ignored_or_made_up(settings: dict[str, object], fault: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=fault):
        load_preprocessor({"kind": "image", **settings}, tmp_path)


def test_a_sample_of_a_kind_to_come_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unknown kind \(audio, label\)"):
        load_sample({"audio": "golden/0000.wav", "label": "a bark"}, tmp_path)
