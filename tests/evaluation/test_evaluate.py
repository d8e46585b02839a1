"""A written bundle is scored again, on its own data or on others."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from trainyard.core.bundle import Bundle
from trainyard.data.encoded import StreamedImages
from trainyard.evaluation.evaluate import evaluate

CPU = torch.device("cpu")


def test_the_own_test_split_gives_the_runs_own_scores(digits_run: Path) -> None:
    own = json.loads((digits_run / "metrics.json").read_text())["test"]

    assert evaluate(Bundle.open(digits_run), [], CPU).summary() == own


def test_streamed_images_are_decoded_in_threads_with_the_same_scores(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    decode = StreamedImages._decode

    def record(self: StreamedImages, index: int) -> object:
        threads.add(threading.current_thread())
        return decode(self, index)

    monkeypatch.setattr(StreamedImages, "_decode", record)
    bundle, words = Bundle.open(digits_run), ["data.limit=200"]
    cached = evaluate(bundle, words, CPU)
    assert not threads

    streamed = evaluate(bundle, [*words, "data.cache_gb=0", "data.workers=2"], CPU)

    assert streamed == cached
    assert threads
    assert threading.main_thread() not in threads
