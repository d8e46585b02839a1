"""Looks at a format's file in every respect but its speed: scores, shapes, batch invariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import BatchInvariance, FormatName
from trainyard.base.errors import BundleError
from trainyard.formats.base import Runtime
from trainyard.formats.errors import first_line
from trainyard.formats.table import find_format
from trainyard.heads.table import head_of
from trainyard.inference.runtimes import open_runtime
from trainyard.preprocess.base import Encoded
from trainyard.verify.batch_invariance import Case, make_cases, measure_invariance, sweep
from trainyard.verify.examples import Examples
from trainyard.verify.gate import Gate, Verdict, judge


@dataclass(frozen=True)
class Reference:
    """What every format is held against.

    Attributes:
        runtime: Eager, on the CPU.
        logits: Its answers to the examples, ``[examples, classes] float32``.
        cases: Its answers to batches of all shapes.
        encoded: Items whose answers are watched.
    """

    bundle: Bundle
    runtime: Runtime
    examples: Examples
    logits: NDArray[np.float32]
    cases: Sequence[Case]
    encoded: Sequence[Encoded]
    gate: Gate
    threads: int

    def judged(self, format: FormatName, logits: NDArray[np.float32]) -> Verdict:
        """What the gate says of a format's answers to the examples."""
        labels, head = self.examples.labels, head_of(self.bundle)
        return judge(head, format, logits, self.logits, labels, self.bundle.labels, self.gate)


@dataclass(frozen=True)
class Examined:
    """A format's file with what was found.

    Attributes:
        runtime: The loaded format; none if it can't be loaded.
        reasons: Why it is refused, a sentence each.
        batch_invariance: How far an answer moves; none of a refused format.
    """

    runtime: Runtime | None
    verdict: Verdict
    reasons: tuple[str, ...]
    batch_invariance: BatchInvariance | None = None

    @property
    def passed(self) -> bool:
        """Whether the gate lets it through."""
        return not self.reasons


def reference(bundle: Bundle, examples: Examples, encoded: Sequence[Encoded], gate: Gate, threads: int) -> Reference:
    """Has eager answer everything that the formats will be asked.

    Args:
        bundle: The model.
        examples: To score on.
        encoded: Items whose answers are watched in batches of all kinds.
        gate: The bounds.
        threads: Of one call.
    """
    runtime = open_runtime("eager", bundle, device="cpu", threads=threads)
    cases = make_cases(runtime.logits, encoded, bundle.preprocessor)
    return Reference(bundle, runtime, examples, examples.logits(runtime), cases, encoded, gate, threads)


def examine(format: FormatName, file: Path, against: Reference) -> Examined:
    """Scores a format, runs it in all shapes, and watches its answers in batches of all kinds."""
    try:
        device = None if find_format(format).device == "gpu" else "cpu"
        runtime = open_runtime(format, against.bundle, file, device, against.threads)
    except BundleError as error:
        return Examined(None, Verdict(), (str(error),))
    verdict, reasons = _score(format, runtime, against)
    reasons += _shapes(format, runtime, against)
    invariance = None if reasons else measure_invariance(runtime.logits, against.encoded, against.bundle.preprocessor)
    return Examined(runtime, verdict, reasons, invariance)


def _score(format: FormatName, runtime: Runtime, against: Reference) -> tuple[Verdict, tuple[str, ...]]:
    try:
        logits = against.examples.logits(runtime)
    except Exception as error:  # the runtimes' errors have no base in common
        return Verdict(), (f"it fails on the examples: {first_line(error)}",)
    verdict = against.judged(format, logits)
    return verdict, verdict.reasons


def _shapes(format: FormatName, runtime: Runtime, against: Reference) -> tuple[str, ...]:
    found = sweep(runtime.logits, against.cases)
    reasons = found.failures[:1]
    if find_format(format).precision == "fp32" and found.max_abs_diff > against.gate.max_abs_diff:
        reasons += (
            f"a logit of {found.where} differs by {found.max_abs_diff:.2g} from eager's, "
            f"and {against.gate.max_abs_diff:g} is the most",
        )
    return reasons
