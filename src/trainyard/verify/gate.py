"""The gate: what a format must score, next to the model that it is made from, before anybody is told to deploy it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.export_record import FormatName
from trainyard.evaluation.intervals import wilson_interval
from trainyard.formats.table import find_format

if TYPE_CHECKING:
    from trainyard.heads.base import Head
    from trainyard.heads.scores import Scores

Logits = NDArray[np.float32]

SLACK = 1e-9
"""Shares are products of floats: one that is equal to its bound must not fail by rounding."""
CONSTANT_SHARE = 0.01
"""A format whose logits vary over the examples by less than this share of eager's has lost its input."""


@dataclass(frozen=True)
class Gate:
    """The bounds.

    Attributes:
        metric_share: Least share of eager's accuracy, and of its macro-F1. That a model in any precision keeps 99 % of
            fp32's quality is the rule of MLPerf Inference for most models (Reddi et al. 2020, arXiv:1911.02549).
        int8_agreement: Least share of the examples that get eager's class, of a format in int8, or in 16-bit floats. Of
            an fp32 format it is all of them, but for ties.
        max_abs_diff: Largest difference of a logit to eager's, of an fp32 format.
    """

    metric_share: float = 0.99
    int8_agreement: float = 0.98
    max_abs_diff: float = 1e-3

    def to_dict(self) -> dict[str, float]:
        """The bounds, as ``export.json`` keeps them."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What was measured of a format. The figures are null where its outputs are of a wrong shape or not finite.

    Attributes:
        accuracy_interval: Wilson's 95 % interval. It tells how much the split can say; the gate doesn't look at it,
            because both models saw the same examples.
        agreement: Share of the examples that get eager's class; of an fp32 format, ties count as agreeing.
        max_abs_diff: Largest difference of a logit to eager's.
        reasons: Why it is refused, a sentence each; none if it passed.
    """

    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    agreement: float | None = None
    max_abs_diff: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def judge(
    head: Head,
    name: FormatName,
    logits: Logits,
    reference: Logits,
    labels: NDArray[np.int64],
    classes: Sequence[str],
    gate: Gate,
) -> Verdict:
    """Compares a format's answers with eager's and with the truth.

    Args:
        head: What the logits mean: it scores them, and says which scores count and which answers are the same.
        name: Which format; it decides on the bounds.
        logits: What the format gave. ``[examples, classes] float32`` is expected; any other shape is a reason.
        reference: What eager gave, ``[examples, classes] float32``.
        labels: The true classes, ``[examples] int64``.
        classes: Names of the classes, each different.
        gate: The bounds.

    Raises:
        DataError: there are no examples, or eager's own logits are not finite.
    """
    eager = _score(head, reference, labels, classes)
    is_fp32 = find_format(name).precision == "fp32"
    if broken := _broken(logits, reference):
        return Verdict(reasons=(broken,))
    scores = _score(head, logits, labels, classes)
    difference = largest_difference(logits, reference)
    agreeing = _agreeing(head, is_fp32, logits, reference, difference, gate)
    reasons = (
        *_worse_scores(head, scores, eager, gate),
        *_too_few_agree(is_fp32, agreeing, len(labels), gate),
        *_too_different(is_fp32, difference, gate),
        *_without_input(logits, reference, gate),
    )
    return Verdict(
        accuracy=scores.accuracy,
        accuracy_interval=wilson_interval(scores.correct, scores.examples),
        macro_f1=scores.macro_f1,
        agreement=agreeing / len(labels),
        max_abs_diff=difference,
        reasons=reasons,
    )


def largest_difference(logits: Logits, reference: Logits) -> float:
    """The largest difference of a logit. Both are of one shape with at least one logit, and finite."""
    return float(np.abs(logits.astype(np.float64) - reference).max())


def _score(head: Head, logits: Logits, labels: NDArray[np.int64], classes: Sequence[str]) -> Scores:
    import torch

    return head.scores(torch.tensor(logits), torch.tensor(labels), classes)


def _broken(logits: Logits, reference: Logits) -> str:
    if logits.shape != reference.shape:
        return f"its logits are {_shape(logits)} where eager's are {_shape(reference)}"
    if count := int((~np.isfinite(logits)).any(axis=1).sum()):
        return f"its logits are not finite for {count} of {len(logits)} examples"
    return ""


def _shape(logits: Logits) -> str:
    return " x ".join(map(str, logits.shape)) or "a single number"


def _agreeing(head: Head, is_fp32: bool, logits: Logits, reference: Logits, difference: float, gate: Gate) -> int:
    """How many examples get eager's class.

    If no logit differs by more than d, then where eager prefers a class and the format another, eager's logits of both
    lie within 2 d: one came down by at most d, the other went up by at most d. (Within d alone would not do: both may
    move.) So an fp32 format that is within its bound disagrees on ties alone, and nothing is left to count. Beyond its
    bound nothing is forgiven.
    """
    if is_fp32 and difference <= gate.max_abs_diff:
        return len(logits)
    return int(head.agrees(logits, reference).sum())


def _worse_scores(head: Head, scores: Scores, eager: Scores, gate: Gate) -> Iterator[str]:
    references = head.compared(eager)
    for name, value in head.compared(scores).items():
        reference = references[name]
        if value < gate.metric_share * reference - SLACK:
            yield f"{name} {value:.4g} is below {100 * gate.metric_share:.4g} % of eager's {reference:.4g}"


def _too_few_agree(is_fp32: bool, agreeing: int, examples: int, gate: Gate) -> Iterator[str]:
    least = 1.0 if is_fp32 else gate.int8_agreement
    if agreeing / examples < least - SLACK:
        # Counts, because one example of a million would read as a share of 1.
        yield f"only {agreeing} of {examples} examples get eager's class, and {100 * least:.4g} % must"


def _too_different(is_fp32: bool, difference: float, gate: Gate) -> Iterator[str]:
    if is_fp32 and difference > gate.max_abs_diff:
        yield f"a logit differs by {difference:.2g} from eager's, and {gate.max_abs_diff:g} is the most"


def _without_input(logits: Logits, reference: Logits, gate: Gate) -> Iterator[str]:
    """A constant output passes all else if eager always prefers one class, as on very unequal classes.

    Then its probabilities are all that it says, and they would be lost. An eager model that varies by rounding alone
    proves nothing.
    """
    varies, eager_varies = (float(np.ptp(rows.astype(np.float64), axis=0).max()) for rows in (logits, reference))
    if eager_varies > gate.max_abs_diff and varies < CONSTANT_SHARE * eager_varies:
        yield f"its logits hardly depend on the example: they vary by {varies:.2g}, eager's by {eager_varies:.2g}"
