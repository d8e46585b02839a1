"""Dividing examples into train, val and test: stratified, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import DataError
from trainyard.base.words import counted
from trainyard.config.data import AnyData
from trainyard.data.records import SPLITS, Rows, Split

# Streams of random numbers: one for each decision, so that changing one doesn't change the others.
_TEST, _VAL, _LIMIT = 1, 2, 3


def complete_splits(
    found: Mapping[Split, Rows], data: AnyData, seed: int, complaints: Sequence[str] = ()
) -> dict[Split, Rows]:
    """All three splits: those that are missing are held out of the training examples.

    A class with one example stays in training.

    Args:
        complaints: What reading the data warned of: why there may be no training examples.

    Raises:
        DataError: there are no training examples, or a missing split may not be held out.
    """
    if not len(found.get("train", ())):
        if complaints:
            raise DataError(
                f"{data.path} has no training examples; mend first what was found in it: {'; '.join(complaints)}"
            )
        raise DataError(f"{data.path} has no training examples: name a folder, a file or a split of it `train`")
    splits = dict(found)
    if "test" not in splits:
        splits["train"], splits["test"] = _hold_out(splits["train"], data.test_fraction, [seed, _TEST])
    if "val" not in splits:
        splits["train"], splits["val"] = _hold_out(splits["train"], data.val_fraction, [seed, _VAL])
    return {split: splits[split] for split in SPLITS}


def limit_rows(rows: Rows, limit: int | None, seed: int) -> Rows:
    """At most ``limit`` rows with the classes in proportion, in their order."""
    if limit is None or len(rows) <= limit:
        return rows
    chosen = _stratified(rows.labels, limit, spare=0, seed=[seed, _LIMIT])
    return rows.select(chosen)


def sorted_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, sorted; if all are integers, by value."""
    names = sorted(set(labels))
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(names)


def check_splits(splits: Mapping[Split, Rows], data: AnyData) -> tuple[str, ...]:
    """Checks that the splits can train and measure a classifier.

    Returns:
        The classes, sorted.

    Raises:
        DataError: a split is empty or has a single class, or one isn't in training.
    """
    counts = {split: Counter(rows.labels) for split, rows in splits.items()}
    classes = sorted_classes(counts["train"])
    for split, found in counts.items():
        where = f"the {split} split of {data.path}"
        if not found:
            hint = f": add examples, or raise data.{split}_fraction where it is held out of training"
            raise DataError(f"{where} is empty{'' if split == 'train' else hint}")
        if unknown := sorted(set(found) - set(classes)):
            raise DataError(
                f"{where} has classes that training lacks ({_counted(unknown, found)}): "
                "add examples of them to train, or remove them"
            )
        if len(found) < 2:
            raise DataError(
                f"{where} has a single class, {next(iter(found))!r}: it takes two to train or measure a classifier"
            )
    return classes


def _hold_out(rows: Rows, fraction: float, seed: list[int]) -> tuple[Rows, Rows]:
    """What stays, and what is held out."""
    count = max(2, round(len(rows) * fraction)) if fraction else 0  # two: of two classes
    held_out = _stratified(rows.labels, count, spare=1, seed=seed)
    stays = np.setdiff1d(np.arange(len(rows)), held_out)
    return rows.select(stays), rows.select(held_out)


def _stratified(labels: Sequence[str], count: int, spare: int, seed: list[int]) -> NDArray[np.int64]:
    """Draws about ``count`` rows with the classes in proportion; sorted. ``spare`` rows of each class aren't drawn."""
    code_of = {name: code for code, name in enumerate(sorted(set(labels)))}
    codes = np.array([code_of[label] for label in labels])
    sizes = np.bincount(codes)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = np.split(shuffled[np.argsort(codes[shuffled], kind="stable")], np.cumsum(sizes)[:-1])
    drawn = [rows[:quota] for rows, quota in zip(by_class, _apportion(sizes, count, spare), strict=True)]
    chosen: NDArray[np.int64] = np.sort(np.concatenate(drawn))
    return chosen


def _apportion(sizes: NDArray[np.int64], count: int, spare: int) -> NDArray[np.int64]:
    """Shares ``count`` among classes by largest remainder, and gives the largest two at least one each."""
    room = np.maximum(sizes - spare, 0)
    exact = count * sizes / sizes.sum()
    quotas: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), room)
    largest_first = np.argsort(-sizes, kind="stable")
    if count > 1:
        quotas[largest_first[:2]] = np.maximum(quotas[largest_first[:2]], np.minimum(1, room[largest_first[:2]]))
    for i in np.argsort(quotas - exact, kind="stable"):
        if quotas.sum() < count and quotas[i] < room[i]:
            quotas[i] += 1
    return quotas


def _counted(names: Sequence[str], counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name!r}: {counted(counts[name], 'example')}" for name in names[:5])
    return listed + (f" and {len(names) - 5} more" if len(names) > 5 else "")
