"""Batch invariance: whether an answer depends on what shares its batch, and whether every shape runs.

A scale that is taken from the batch at hand, as by dynamic quantisation, moves an answer with its neighbours and with
the padding that they bring. A server batches whatever arrives together, so such a format would answer at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.export_record import BatchInvariance, FormatName
from trainyard.formats.errors import first_line
from trainyard.formats.table import find_format
from trainyard.preprocess.base import Encoded, Inputs, Preprocessor
from trainyard.verify.gate import largest_difference

Run = Callable[[Inputs], NDArray[np.float32]]
"""A model: inputs to logits ``[batch, classes] float32``."""

MAX_MOVE = 1e-5
"""Largest difference of a probability that is rounding: a sum over more terms rounds otherwise, by some 1e-7."""
MAX_MOVE_HALF = 1e-2
"""The same in 16-bit floats: a GPU chooses the order of its sums by the size of the batch, and rounds each to 8 bits
(bfloat16) or 11 (float16)."""

ITEMS = 128
"""Most items whose answers are compared. A rounding that tips over is rare: 32 texts showed none, 128 some."""
SIZES = (2, 7, 32)
"""Batches that they are compared in. The model runs about 400 times in all."""
EXTREME_BATCHES = 6
"""Most batches of each size that hold an extreme neighbour."""

SHAPE_BATCHES = (1, 2, 7, 32)
"""Sizes of the batches that every format must run, in each shape that the preprocessor names."""

SEED = 0


def max_move(name: FormatName) -> float:
    """Largest difference of a probability that is rounding, in this format's numbers."""
    return MAX_MOVE if find_format(name).precision in ("fp32", "int8") else MAX_MOVE_HALF


def moves(found: BatchInvariance, most: float = MAX_MOVE) -> bool:
    """Whether an answer depends on what shares its batch."""
    return max(found.neighbours, found.padding) > most


def measure_invariance(run: Run, encoded: Sequence[Encoded], preprocessor: Preprocessor) -> BatchInvariance:
    """Compares the answers to items alone with those in batches, among other and extreme neighbours, and padded.

    An answer that isn't finite has moved as far as a probability can, by 1.

    Args:
        run: The model. That it runs every shape was seen before, by ``sweep``; what it raises goes to the caller.
        encoded: Items, at least one; the first ``ITEMS`` are used.
        preprocessor: What encoded them.
    """
    items = list(encoded[:ITEMS])
    assert items, "there must be items"
    generator = np.random.default_rng(SEED)
    alone = np.concatenate([_probabilities(run(preprocessor.collate([item]))) for item in items])
    neighbours = padding = 0.0
    for chosen, strangers in _groups(items, preprocessor, generator):
        together = _probabilities(run(preprocessor.collate([*(items[i] for i in chosen), *strangers])))
        neighbours = max(neighbours, _move(together[: len(chosen)], alone[chosen]))
    for i, inputs in preprocessor.paddings(items):
        padding = max(padding, _move(_probabilities(run(inputs)), alone[i : i + 1]))
    return BatchInvariance(neighbours=neighbours, padding=padding)


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # of infinite logits; ``_move`` deals with what comes out
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _move(some: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    assert some.shape == others.shape, "a row for each item"
    return float(np.nan_to_num(np.abs(some - others), nan=1.0).max())


Group = tuple[NDArray[np.int64], list[Encoded]]
"""Indices of the items in a batch, and the strangers in it, whose answers aren't compared."""


def _groups(items: Sequence[Encoded], preprocessor: Preprocessor, generator: np.random.Generator) -> Iterator[Group]:
    extremes = preprocessor.extremes(items, generator)
    for size in SIZES:
        yield from ((chosen, []) for chosen in _shuffled(len(items), size, generator))
        rest = _shuffled(len(items), size - 1, generator)[:EXTREME_BATCHES]
        yield from ((chosen, [extremes[i % len(extremes)]]) for i, chosen in enumerate(rest))
    if widest := preprocessor.widest(items, generator):
        # A batch of 32 at full length takes a large model half a minute, and shows no more.
        yield from ((_shuffled(len(items), size - 1, generator)[0], widest) for size in SIZES[:2])


def _shuffled(count: int, width: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Each index at least once, in rows of ``width``; where that doesn't come out even, some are there again."""
    rows = -(-count // width)
    return np.resize(generator.permutation(count), (rows, width))


@dataclass(frozen=True)
class Case:
    """A batch of one of the shapes that every format must run.

    Attributes:
        name: Its shape, as in ``batch 7 x length 128``.
        expected: Logits of eager, ``[batch, classes] float32``.
    """

    name: str
    inputs: Inputs
    expected: NDArray[np.float32]


@dataclass(frozen=True)
class Sweep:
    """How a format does over all cases.

    Attributes:
        max_abs_diff: Largest difference of a logit to that of eager, over the cases that ran; 0 if none did.
        where: The name of the case of that difference; empty if none ran.
        failures: What went wrong in other cases, a sentence each; none if all ran.
    """

    max_abs_diff: float
    where: str
    failures: tuple[str, ...]


def make_cases(reference: Run, encoded: Sequence[Encoded], preprocessor: Preprocessor) -> list[Case]:
    """Batches of every shape that a format must run. Eager answers here, once for all formats.

    Args:
        reference: The eager model.
        encoded: Items, at least one, of which they are made.
        preprocessor: What encoded them.
    """
    batches = preprocessor.shapes(encoded, SHAPE_BATCHES, np.random.default_rng(SEED))
    cases = ((name, preprocessor.collate(batch)) for name, batch in batches)
    return [Case(name, inputs, reference(inputs)) for name, inputs in cases]


def sweep(run: Run, cases: Sequence[Case]) -> Sweep:
    """Runs a format on all cases. What it raises, as a frozen dimension does, becomes a failure."""
    differences: dict[str, float] = {}
    failures: list[str] = []
    for case in cases:
        try:
            differences[case.name] = _difference(run(case.inputs), case.expected)
        except Exception as error:  # the runtimes' errors have no base in common
            failures.append(f"{case.name} fails: {first_line(error)}")
    where = max(differences, key=differences.__getitem__, default="")
    return Sweep(differences.get(where, 0.0), where, tuple(failures))


def _difference(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if logits.shape != expected.shape:
        raise ValueError(f"the logits' shape is {logits.shape} where eager's is {expected.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("the logits are not finite")
    return largest_difference(logits, expected)
