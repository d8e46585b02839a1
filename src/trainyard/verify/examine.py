"""Looks at a rung's file in every respect but its speed: scores, shapes, company."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import Company
from trainyard.base.errors import BundleError
from trainyard.formats.errors import first_line
from trainyard.formats.names import Rung, is_fp32, is_gpu
from trainyard.formats.runtime import Runtime
from trainyard.inference.runtimes import open_runtime
from trainyard.preprocess.preprocessor import Encoded
from trainyard.verify.batch_invariance import Case, make_cases, measure_company, sweep
from trainyard.verify.examples import Examples
from trainyard.verify.gate import Gate, Verdict, judge


@dataclass(frozen=True)
class Reference:
    """What every rung is held against.

    Attributes:
        runtime: Eager, on the CPU.
        logits: Its answers to the examples, ``[examples, classes] float32``.
        cases: Its answers to batches of all shapes.
    """

    bundle: Bundle
    runtime: Runtime
    examples: Examples
    logits: NDArray[np.float32]
    cases: Sequence[Case]
    company: Sequence[Encoded]
    gate: Gate
    threads: int


@dataclass(frozen=True)
class Examined:
    """A rung's file with what was found.

    Attributes:
        runtime: The loaded rung; none if it can't be loaded.
        reasons: Why it is refused, a sentence each.
        company: How far an answer moves; none of a refused rung.
    """

    runtime: Runtime | None
    verdict: Verdict
    reasons: tuple[str, ...]
    company: Company | None = None

    @property
    def passed(self) -> bool:
        """Whether the gate lets it through."""
        return not self.reasons


def reference(bundle: Bundle, examples: Examples, encoded: Sequence[Encoded], gate: Gate, threads: int) -> Reference:
    """Has eager answer everything that the rungs will be asked.

    Args:
        bundle: The model.
        examples: To score on.
        encoded: Items whose answers are watched in company.
        gate: The bounds.
        threads: Of one call.
    """
    runtime = open_runtime("eager", bundle, device="cpu", threads=threads)
    cases = make_cases(runtime.logits, encoded, bundle.preprocessor)
    return Reference(bundle, runtime, examples, examples.logits(runtime), cases, encoded, gate, threads)


def examine(rung: Rung, file: Path, against: Reference) -> Examined:
    """Scores a rung, runs it in all shapes, and puts it in company."""
    try:
        device = None if is_gpu(rung) else "cpu"
        runtime = open_runtime(rung, against.bundle, file, device, against.threads)
    except BundleError as error:
        return Examined(None, Verdict(), (str(error),))
    verdict, reasons = _score(rung, runtime, against)
    reasons += _shapes(rung, runtime, against)
    company = None if reasons else measure_company(runtime.logits, against.company, against.bundle.preprocessor)
    return Examined(runtime, verdict, reasons, company)


def _score(rung: Rung, runtime: Runtime, against: Reference) -> tuple[Verdict, tuple[str, ...]]:
    try:
        logits = against.examples.logits(runtime)
    except Exception as error:  # the runtimes' errors have no base in common
        return Verdict(), (f"it fails on the examples: {first_line(error)}",)
    verdict = judge(rung, logits, against.logits, against.examples.labels, against.bundle.labels, against.gate)
    return verdict, verdict.reasons


def _shapes(rung: Rung, runtime: Runtime, against: Reference) -> tuple[str, ...]:
    found = sweep(runtime.logits, against.cases)
    reasons = found.failures[:1]
    if is_fp32(rung) and found.max_abs_diff > against.gate.max_abs_diff:
        reasons += (
            f"a logit of {found.where} differs by {found.max_abs_diff:.2g} from eager's, "
            f"and {against.gate.max_abs_diff:g} is the most",
        )
    return reasons
