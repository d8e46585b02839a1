"""A written bundle is scored again, on its own data or on others."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from toy.train import Config, train

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import DataError, UsageError
from trainyard.data import encoded
from trainyard.evaluation.evaluate import evaluate

CPU = torch.device("cpu")


def test_the_own_test_split_gives_the_runs_own_scores(digits_run: Path) -> None:
    own = json.loads((digits_run / "metrics.json").read_text())["test"]

    assert evaluate(Bundle.open(digits_run), [], CPU).summary() == own


@pytest.mark.parametrize("word", ["data.batch_size=7", "data.cache_gb=0"])
def test_how_the_examples_are_read_does_not_change_which(digits_run: Path, word: str) -> None:
    own = json.loads((digits_run / "metrics.json").read_text())["test"]

    assert evaluate(Bundle.open(digits_run), [word], CPU).summary() == pytest.approx(own)


def test_a_limit_takes_from_the_test_split_alone(digits_run: Path) -> None:
    scores = evaluate(Bundle.open(digits_run), ["data.limit=50"], CPU)

    assert scores.examples == 50


@pytest.mark.parametrize("word", ["data.image_size=16", "trainer.max_epochs=1"])
def test_what_the_bundle_fixes_is_refused(digits_run: Path, word: str) -> None:
    with pytest.raises(UsageError, match="fixed in the bundle|isn't a key of the data"):
        evaluate(Bundle.open(digits_run), [word], CPU)


@pytest.fixture
def texts_run(tmp_path: Path) -> Path:
    """A run over 60 texts of one file, of which the bundle's own limit kept some."""
    write_texts(tmp_path / "texts.csv", 60)
    data = {"kind": "texts", "path": f"{tmp_path}/texts.csv", "limit": 30, "batch_size": 4}
    config = {
        "name": "texts",
        "out": tmp_path / "runs",
        "data": {**data, "cache": f"{tmp_path}/cache"},
        "model": {"kind": "encoder", "vocab_size": 200},
        "trainer": {"max_epochs": 1, "threads": 1, "devices": "cpu", "loggers": []},
    }
    return train(Config.model_validate(config))


def write_texts(path: Path, count: int, shift: int = 0) -> None:
    rows = [f"{'good' if i % 2 else 'bad'} thing number {i + shift},{i % 2}" for i in range(count)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")


def test_data_that_moved_is_known_again(texts_run: Path, tmp_path: Path) -> None:
    own = evaluate(Bundle.open(texts_run), [], CPU)
    moved = (tmp_path / "texts.csv").rename(tmp_path / "moved.csv")

    assert evaluate(Bundle.open(texts_run), [f"data.path={moved}"], CPU) == own


def test_other_data_is_scored_whole(texts_run: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "other.csv", 50, shift=1000)
    scores = evaluate(Bundle.open(texts_run), [f"data.path={tmp_path}/other.csv"], CPU)
    assert scores.examples == 50, "the limit was for the bundle's own data"

    write_texts(tmp_path / "one_class.csv", 1)
    assert evaluate(Bundle.open(texts_run), [f"data.path={tmp_path}/one_class.csv"], CPU).examples == 1


def test_data_that_changed_is_told(texts_run: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv", 60, shift=1000)

    with pytest.raises(DataError, match="changed since the training"):
        evaluate(Bundle.open(texts_run), [], CPU)


def test_streamed_images_are_decoded_in_threads_with_the_same_scores(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    decode = encoded._decode

    def record(*arguments: Any) -> object:
        threads.add(threading.current_thread())
        return decode(*arguments)

    monkeypatch.setattr(encoded, "_decode", record)
    bundle, words = Bundle.open(digits_run), ["data.limit=200"]
    cached = evaluate(bundle, words, CPU)
    assert not threads

    streamed = evaluate(bundle, [*words, "data.cache_gb=0", "data.workers=2"], CPU)

    assert streamed == cached
    assert threads
    assert threading.main_thread() not in threads
