"""Batches are a function of seed and epoch: complete, equal on all ranks, resumable."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainyard.data.sampling import epoch_batches, eval_batches

COUNTS = st.integers(1, 300)
BATCHES = st.integers(1, 17)
WORLDS = st.integers(1, 5)


def lengths_of(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(count).integers(3, 60, count)


@given(COUNTS, BATCHES, WORLDS, st.booleans())
def test_evaluation_sees_each_example_once_over_all_ranks(count: int, size: int, world: int, sort: bool) -> None:
    lengths = lengths_of(count) if sort else None
    ranks = [eval_batches(count, size, rank=rank, world_size=world, lengths=lengths) for rank in range(world)]

    assert len({len(batches) for batches in ranks}) == 1
    seen = np.concatenate([batch for batches in ranks for batch in batches])
    assert sorted(seen[seen >= 0]) == list(range(count))
    for batch in (batch for batches in ranks for batch in batches):
        assert len(batch) == size
        fillers = np.flatnonzero(batch < 0)
        assert fillers.tolist() == list(range(size - len(fillers), size)), "fillers are at the end"


@given(COUNTS, BATCHES, WORLDS, st.integers(0, 5), st.booleans())
def test_training_ranks_take_equal_steps_and_share_no_example(
    count: int, size: int, world: int, epoch: int, bucket: bool
) -> None:
    lengths = lengths_of(count) if bucket else None
    ranks = [
        epoch_batches(count, size, seed=7, epoch=epoch, rank=rank, world_size=world, lengths=lengths)
        for rank in range(world)
    ]

    assert {len(batches) for batches in ranks} == {max(1, count // (size * world))}
    assert all(len(batch) == size for batches in ranks for batch in batches)
    seen = np.concatenate([batch for batches in ranks for batch in batches])
    if count >= size * world:
        assert len(set(seen.tolist())) == len(seen)
    else:  # smaller than one global batch: repeated, all of it
        assert set(seen.tolist()) == set(range(count))


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    def order(**keys: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_batches(100, 8, lengths=lengths_of(100), **keys)]

    assert order(seed=1, epoch=3) == order(seed=1, epoch=3)
    assert order(seed=1, epoch=3) != order(seed=1, epoch=4)
    assert order(seed=1, epoch=3) != order(seed=2, epoch=3)


def test_the_examples_left_out_change_with_the_epoch() -> None:
    left_out = [set(range(10)) - set(np.concatenate(epoch_batches(10, 4, seed=0, epoch=e)).tolist()) for e in range(8)]

    assert all(len(examples) == 2 for examples in left_out)
    assert len({frozenset(examples) for examples in left_out}) > 1


def padding(batches: list[NDArray[np.int64]], lengths: NDArray[np.int64]) -> float:
    """Tokens with padding per token without."""
    return float(sum(lengths[b].max() * len(b) for b in batches) / sum(lengths[b].sum() for b in batches))


def test_buckets_pad_far_less_on_every_rank_alike() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 4000)

    mixed = epoch_batches(4000, 16, seed=0, epoch=0)
    ranks = [epoch_batches(4000, 16, seed=0, epoch=0, rank=r, world_size=2, lengths=lengths) for r in range(2)]

    assert padding(mixed, lengths) > 1.6
    assert max(padding(batches, lengths) for batches in ranks) < 1.1
    steps = [[lengths[batch].max() for batch in batches] for batches in ranks]
    assert np.abs(np.subtract(*steps)).max() <= 3, "ranks wait for each other at every step"
    assert np.corrcoef(steps[0], np.arange(len(steps[0])))[0, 1] < 0.3, "short and long batches come in mixed order"


def test_evaluation_by_length_starts_with_the_longest_and_pads_little() -> None:
    lengths = lengths_of(200)

    batches = eval_batches(200, 10, lengths=lengths)

    assert lengths[batches[0]].max() == lengths.max()
    assert padding(batches, lengths) < 1.1


def test_weights_balance_the_classes() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    weights = np.where(labels == 1, 9.0, 1.0)

    drawn = np.concatenate(epoch_batches(1000, 20, seed=0, epoch=0, weights=weights))

    assert 0.4 < labels[drawn].mean() < 0.6
    assert len(set(drawn.tolist())) < len(drawn), "with replacement"


def test_an_epoch_of_50000_examples_is_drawn_quickly() -> None:
    lengths = lengths_of(50_000)
    epoch_batches(50_000, 32, seed=0, epoch=0, lengths=lengths)

    best = min(timed_epoch(lengths) for _ in range(5))

    assert best < 0.02


def timed_epoch(lengths: NDArray[np.int64]) -> float:
    start = time.process_time()
    epoch_batches(50_000, 32, seed=0, epoch=1, lengths=lengths)
    return time.process_time() - start
