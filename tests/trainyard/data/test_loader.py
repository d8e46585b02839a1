"""Batches of tensors, in order, for any number of workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainyard.base.errors import DataError
from trainyard.data.loader import make_loader
from trainyard.data.sampling import epoch_batches, eval_batches
from trainyard.data.threads import ordered_map
from trainyard.preprocess.base import Inputs


class Numbers:
    """A split whose inputs are the indices themselves; some batches take longer than others."""

    lengths = None

    def __init__(self, count: int, slow: bool = False) -> None:
        self.labels: NDArray[np.int64] = np.arange(count) * 10
        self.slow = slow

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Inputs:
        if self.slow:
            time.sleep(0.001 * (indices[0] % 5))
        return {"numbers": np.asarray(indices)}


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_order_and_content_do_not_depend_on_the_workers(workers: int) -> None:
    batches = epoch_batches(100, 7, seed=0, epoch=0)

    loader = make_loader(Numbers(100, slow=True), batches, workers=workers)

    assert len(loader) == 14
    for expected, batch in zip(batches, loader, strict=True):
        assert batch.indices.dtype == batch.labels.dtype == torch.int64
        assert batch.indices.tolist() == batch.inputs["numbers"].tolist() == expected.tolist()
        assert batch.labels.tolist() == (expected * 10).tolist()


def test_an_epoch_goes_on_in_the_middle() -> None:
    batches = epoch_batches(50, 4, seed=3, epoch=2)
    whole = [batch.indices.tolist() for batch in make_loader(Numbers(50), batches)]

    rest = [batch.indices.tolist() for batch in make_loader(Numbers(50), batches[5:], workers=2)]

    assert rest == whole[5:]


def test_a_filler_has_the_inputs_of_example_0() -> None:
    (batch,) = make_loader(Numbers(3), eval_batches(3, 5))

    assert batch.indices.tolist() == [0, 1, 2, -1, -1]
    assert batch.inputs["numbers"].tolist() == [0, 1, 2, 0, 0]
    assert batch.labels.tolist() == [0, 10, 20, 0, 0]


def test_a_loader_can_be_iterated_again() -> None:
    loader = make_loader(Numbers(10), eval_batches(10, 4), workers=1)

    assert [batch.indices.tolist() for batch in loader] == [batch.indices.tolist() for batch in loader]


def test_stopping_early_stops_the_threads() -> None:
    before = threading.active_count()
    batches = iter(make_loader(Numbers(100, slow=True), eval_batches(100, 2), workers=3))
    next(batches)

    batches.close()  # type: ignore[attr-defined]

    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised_where_the_batch_is_asked_for() -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise DataError("three")
        return number

    results = ordered_map(fail, range(10), threads=2)

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="three"):
        next(results)


def test_only_a_few_results_wait() -> None:
    started: list[int] = []
    results = ordered_map(started.append, range(100), threads=2)

    next(results)
    results.close()  # type: ignore[attr-defined]

    assert len(started) <= 5


def test_a_batch_costs_little_beyond_its_content() -> None:
    split, batches = Numbers(10_000), eval_batches(10_000, 10)

    assert min(milliseconds_per_batch(split, batches) for _ in range(5)) < 0.3


def milliseconds_per_batch(split: Numbers, batches: Sequence[NDArray[np.int64]]) -> float:
    start = time.process_time()
    for _ in make_loader(split, batches):
        pass
    return (time.process_time() - start) / len(batches) * 1e3
