"""Latency and throughput of a bundle's formats over batch sizes and thread counts, measured in turns."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import Export, FormatName, Opened
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.cpu import this_cpu
from trainyard.base.environment import describe_environment
from trainyard.base.errors import UsageError
from trainyard.base.files import is_writable, nearest_existing
from trainyard.formats.base import Runtime
from trainyard.formats.table import all_formats
from trainyard.inference.runtimes import open_runtime
from trainyard.inference.selection import obstacle
from trainyard.preprocess.base import Encoded, Inputs
from trainyard.report.benchmark import Benchmark, Cell, Percentiles
from trainyard.verify.timing import Timing, speedup, time_in_turns

log = logging.getLogger(__name__)

BENCHMARKS = "benchmarks"
SYNTHETIC_ITEMS = 32


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        formats: Which; ``eager``, which the others are compared with, is measured even if it isn't among them. None are
            all that can run.
        batch_sizes: Examples of a call.
        threads: Of a call.
        length: Tokens that each text is brought to; by default texts are as long as they are.
        seconds: Time for all formats together at one batch size and thread count; see ``time_in_turns``.
    """

    formats: tuple[FormatName, ...] | None
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    length: int | None
    seconds: float


def parse_numbers(option: str, words: str) -> tuple[int, ...]:
    """The numbers of a list such as ``1,8``, without repetitions.

    Raises:
        UsageError: one isn't a whole number above 0.
    """
    numbers = [word.strip() for word in words.split(",")]
    for word in numbers:
        if not (word.isascii() and word.isdigit() and int(word) > 0):
            raise UsageError(f"{option}: {word!r} isn't a whole number above 0; write for example {option}=1,8")
    return tuple(dict.fromkeys(int(word) for word in numbers))


def check_plan(plan: Plan, opened: Opened) -> None:
    """Refuses what can't be measured, before anything is loaded; warns of more threads than cores.

    Raises:
        UsageError: a format isn't exported, or the model takes no texts, or none of this length.
    """
    bundle, export = opened
    there = {"eager", *(row.name for row in export.facts.formats)} if export else {"eager"}
    for format in plan.formats or ():
        if format not in there:
            raise UsageError(f"--formats: {format} isn't exported; make it: trainyard export {bundle.path}")
    if plan.length is not None:
        bundle.preprocessor.with_length([], plan.length)
    if max(plan.threads) > (cores := this_cpu().cores):
        log.warning("--threads: %d are more than the %d cores, and wait for each other", max(plan.threads), cores)


def choose_folder(bundle: Bundle, out: Path | None) -> Path:
    """Where to write: ``out``, by default ``benchmarks/<timestamp>`` beside the bundle.

    Raises:
        UsageError: nothing can be written there.
    """
    folder = out or bundle.path.parent / BENCHMARKS / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    if not nearest_existing(folder).is_dir():
        raise UsageError(f"--out={folder} is a file, or lies below one: name a folder")
    if not is_writable(folder):
        raise UsageError(f"nothing can be written to {folder}: name another folder by --out")
    return folder


def run_benchmark(plan: Plan, opened: Opened) -> Benchmark:
    """Measures every format that can run here, on the CPU.

    Raises:
        BundleError: the model itself can't be loaded.
    """
    bundle, export = opened
    formats, left_out = choose_formats(plan, export)
    encoded, inputs = make_items(bundle, plan.length)
    machine = _describe_machine()
    batches = [bundle.preprocessor.collate(list(islice(cycle(encoded), size))) for size in plan.batch_sizes]
    log.info("measuring %d formats, about %.0f seconds", len(formats), plan.seconds * len(plan.threads) * len(batches))
    cells: list[Cell] = []
    with _threads_restored():
        for threads in plan.threads:
            cells += _measure_all(opened, formats, threads, batches, plan.seconds, left_out)
    return Benchmark(
        bundle=bundle.digest,
        export=export.facts.id if export else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=inputs,
        seconds=plan.seconds,
        left_out=left_out,
        machine=machine,
        cells=cells,
    )


def choose_formats(plan: Plan, export: Export | None) -> tuple[list[FormatName], dict[str, str]]:
    """The formats to measure in the table's order, and why others of those that were asked for can't be."""
    left_out: dict[str, str] = {}
    rows = [row for row in export.facts.formats if not plan.formats or row.name in plan.formats] if export else []
    for row in rows:
        if row.name != "eager" and (why := obstacle(row)):
            left_out[row.name] = f"it {why}"
            log.warning("%s is left out: it %s", row.name, why)
    usable = {"eager", *(row.name for row in rows)} - set(left_out)
    return [name for name in all_formats() if name in usable], left_out


def make_items(bundle: Bundle, length: int | None) -> tuple[Sequence[Encoded], str]:
    """Encoded items to show to the model, and what they are.

    Args:
        bundle: Whose samples are taken; one that carries none gets random items.
        length: Tokens that each text is brought to.
    """
    preprocessor = bundle.preprocessor
    encoded: Sequence[Encoded]
    if samples := golden_samples(bundle.path) or calibration_samples(bundle.path):
        encoded = preprocessor.encode_many(sample.item for sample in samples)
        described = f"{len(encoded)} of the bundle's samples in turn"
    else:
        encoded = preprocessor.synthetic(SYNTHETIC_ITEMS, np.random.default_rng(0))
        described = preprocessor.synthetic_name
    if length is None:
        return encoded, described
    return preprocessor.with_length(encoded, length), f"{described}, brought to {length} tokens each"


def _measure_all(
    opened: Opened,
    formats: Sequence[FormatName],
    threads: int,
    batches: Sequence[Inputs],
    seconds: float,
    left_out: dict[str, str],
) -> list[Cell]:
    runtimes: dict[str, Runtime] = {}
    for format in formats:
        if format not in left_out and (runtime := _open(format, opened, threads, batches[0], left_out)):
            runtimes[format] = runtime
    cells: list[Cell] = []
    for batch in batches:
        shape = list(next(iter(batch.values())).shape)
        log.info("threads %d, inputs of %s: %s", threads, shape, ", ".join(runtimes))
        calls = {
            format: (lambda runtime=runtime, batch=batch: runtime.logits(batch)) for format, runtime in runtimes.items()
        }
        timings = time_in_turns(calls, seconds=seconds)
        cells += [_cell(format, timings, threads, shape) for format in formats if format in timings]
    return cells


def _open(format: FormatName, opened: Opened, threads: int, batch: Inputs, left_out: dict[str, str]) -> Runtime | None:
    """Loads a format; one that can't be loaded, or can't answer, is left out from here on."""
    bundle, export = opened
    row = export.facts.row(format) if export else None
    file = export.path / row.file if export and row and row.file else None
    try:
        runtime = open_runtime(format, bundle, file, "cpu", threads)
        runtime.logits(batch)
    except Exception as error:  # the runtimes' errors have no base in common
        if format == "eager":
            raise
        left_out[format] = f"it can't run here: {(str(error) or type(error).__name__).splitlines()[0]}"
        log.warning("%s is left out: %s", format, left_out[format])
        return None
    return runtime


def _cell(format: FormatName, timings: Mapping[str, Timing], threads: int, shape: list[int]) -> Cell:
    timing = timings[format]
    return Cell(
        format=format,
        threads=threads,
        batch_size=shape[0],
        shape=shape,
        calls=len(timing.seconds),
        latency_ms=Percentiles(p50=1e3 * timing.p50, p95=1e3 * timing.p95, p99=1e3 * timing.p99),
        spread=timing.spread,
        throughput=timing.throughput(shape[0]),
        speedup=speedup(timings, format, "eager"),
    )


@contextlib.contextmanager
def _threads_restored() -> Iterator[None]:
    """Torch's number of threads is the whole process's, and may be set at any time: every format of it follows.

    That was seen of eager, TorchScript and AOTInductor, from 1 to 2 threads and back; ONNX Runtime's sessions have
    threads of their own.
    """
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _describe_machine() -> Json:
    machine = describe_environment()
    del machine["threads"]  # what torch would take, and each cell has its own
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    cpu = this_cpu()
    if load and load > cpu.cores / 2:
        # OpenMP's threads spin while one that another program pushed aside is missing: calls of 8 ms then took 1.5 s.
        log.warning("others are at work on this machine (load %.1f): more than one thread will look slow", load)
    return {**machine, "cores": cpu.cores, "flags": list(cpu.flags), "load": load}
