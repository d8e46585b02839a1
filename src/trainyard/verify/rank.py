"""Times all formats in turns, and says of each what became of it: its row in ``export.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.artifacts.bundle import WEIGHTS
from trainyard.artifacts.export_record import FormatName, FormatRow, Latency, Status
from trainyard.formats.table import find_format
from trainyard.inference.runtimes import open_runtime
from trainyard.preprocess.base import Inputs
from trainyard.verify.batch_invariance import max_move, moves
from trainyard.verify.examine import Examined, Reference
from trainyard.verify.gate import Verdict
from trainyard.verify.timing import Timing, speedup, time_in_turns

TIMED_BATCH = 8
"""Examples of a timed call."""
SECONDS = 12.0
"""For all timed calls together."""
MIN_ROUNDS = 11
EAGER_ON_GPU = "eager on the GPU"
"""What the formats for GPUs are timed against."""


@dataclass(frozen=True)
class Outcome:
    """What became of the attempts at a format.

    Attributes:
        file: The last that was made; none if it was skipped.
        examined: What was found in it.
        tried: The attempts, with their outcome.
        skipped: Why it can't be made.
        needs: Flags of the processor that it depends on.
    """

    name: FormatName
    file: Path | None = None
    examined: Examined | None = None
    tried: tuple[str, ...] = ()
    skipped: str = ""
    needs: tuple[str, ...] = ()


def rank(outcomes: Sequence[Outcome], against: Reference, batch: Inputs) -> list[FormatRow]:
    """Times what passed the gate beside eager, and gives each format its row, eager's first.

    Args:
        outcomes: The formats.
        against: Eager and its answers.
        batch: ``TIMED_BATCH`` examples.
    """
    runtimes = {"eager": against.runtime}
    for one in outcomes:
        if one.examined is not None and one.examined.passed and one.examined.runtime is not None:
            runtimes[one.name] = one.examined.runtime
    if any(find_format(one.name).device == "gpu" for one in outcomes if one.name in runtimes):
        runtimes[EAGER_ON_GPU] = open_runtime("eager", against.bundle, device="cuda")
    calls = {name: (lambda runtime=runtime: runtime.logits(batch)) for name, runtime in runtimes.items()}
    timings = time_in_turns(calls, seconds=SECONDS, min_rounds=MIN_ROUNDS)
    return [_eager_row(against, timings), *(_row(one, timings) for one in outcomes)]


def recommended(rows: Sequence[FormatRow]) -> FormatName:
    """The fastest format that may be recommended for processors; eager, if none is faster."""
    passed = [row for row in rows if row.status in ("reference", "passed")]
    candidates = [row for row in passed if find_format(row.name).device != "gpu"]
    return max(candidates, key=lambda row: row.speedup or 0.0).name


def _eager_row(against: Reference, timings: Mapping[str, Timing]) -> FormatRow:
    verdict = against.judged("eager", against.logits)
    row = FormatRow(
        name="eager",
        size_mb=(against.bundle.path / WEIGHTS).stat().st_size / 1e6,
        status="reference",
    )
    return row.model_copy(update=_scores(verdict) | _speed("eager", timings))


def _row(one: Outcome, timings: Mapping[str, Timing]) -> FormatRow:
    if one.examined is None or one.file is None:
        return FormatRow(name=one.name, status="skipped", reason=one.skipped, made_with=list(one.tried))
    status, reason = _status(one.name, one.examined, timings)
    row = FormatRow(
        name=one.name,
        file=one.file.name,
        size_mb=one.file.stat().st_size / 1e6,
        batch_invariance=one.examined.batch_invariance,
        status=status,
        reason=reason,
        made_with=list(one.tried),
        needs=list(one.needs),
    )
    return row.model_copy(update=_scores(one.examined.verdict) | _speed(one.name, timings))


def _scores(verdict: Verdict) -> dict[str, object]:
    return {
        "accuracy": verdict.accuracy,
        "accuracy_interval": verdict.accuracy_interval,
        "macro_f1": verdict.macro_f1,
        "agreement": verdict.agreement,
        "max_abs_diff": verdict.max_abs_diff,
    }


def _speed(name: FormatName, timings: Mapping[str, Timing]) -> dict[str, object]:
    if name not in timings:
        return {}
    timing = timings[name]
    return {
        "latency_ms": Latency(p50=timing.p50 * 1e3, p95=timing.p95 * 1e3),
        "throughput": timing.throughput(TIMED_BATCH),
        "speedup": speedup(timings, name, EAGER_ON_GPU if find_format(name).device == "gpu" else "eager"),
    }


def _status(name: FormatName, examined: Examined, timings: Mapping[str, Timing]) -> tuple[Status, str]:
    if not examined.passed:
        return "refused", "; ".join(examined.reasons)
    found, most = examined.batch_invariance, max_move(name)
    if found is not None and moves(found, most):
        return "batch_dependent", (
            f"a probability moves by {found.neighbours:.1g} with its neighbours and by {found.padding:.1g} with "
            f"padding, and {most:g} is the most: for use offline"
        )
    if find_format(name).precision != "fp32":
        baseline = _baseline(name, timings)
        gain = speedup(timings, name, baseline)
        if gain <= 1:
            return "no_gain", f"it has {gain:.2f} of the speed of {baseline}"
    return "passed", ""


def _baseline(name: FormatName, timings: Mapping[str, Timing]) -> str:
    """What a format in less than 32 bits must be faster than, to be worth it."""
    format = find_format(name)
    if format.device == "gpu":
        return EAGER_ON_GPU
    return format.baseline if format.baseline in timings else "eager"
