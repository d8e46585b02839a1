"""Which rung answers: the one that was asked for, or the fastest that passed and that this machine can run."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import Export, Format, FormatRow, Opened
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import UsageError
from trainyard.formats.names import GPU_RUNGS, Rung, is_gpu
from trainyard.formats.runtime import Runtime
from trainyard.inference.runtimes import open_runtime
from trainyard.preprocess.preprocessor import Inputs, encode_all

log = logging.getLogger(__name__)

NEAR = 1.5
"""Rungs that were recorded up to so many times as slow as the best may be the best on another processor. Slower ones
aren't tried: loading torch, only to find that it loses, would take seconds at each start."""
SECONDS = 1.0
"""Time for comparing them."""
TIMED_ITEMS = 8
"""Most items of a call that is timed."""
MIN_ROUNDS = 2
REST = 0.05
"""Seconds before each turn: the threads of the last call spin for up to 40 ms, in the hope of another."""
MOVABLE: tuple[Rung, ...] = ("eager", "torchscript", "onnx")
"""What runs on processors and on GPUs; the others are made for one of the two."""


class Chosen(NamedTuple):
    """A rung, loaded."""

    rung: Rung
    runtime: Runtime


def choose(
    opened: Opened, format: Format = "auto", device: str | None = None, threads: int | None = None, batch_size: int = 32
) -> Chosen:
    """Loads the rung of this name or, of ``auto``, the fastest that passed and can run here.

    That is ``eager`` where no rung was faster when they were exported, and where none can run.

    The speeds that the export recorded are of the machine that made it, so those that come near are timed again. On a
    GPU, those that were made for one are compared, and ``eager`` answers where there are none.

    Raises:
        UsageError: there is no such rung, it was refused or skipped, or this machine can't run it.
        ModuleNotFoundError: the packages of the named rung aren't installed.
        BundleError: the named rung can't be loaded.
    """
    if format == "auto":
        return _auto(opened, device, threads, batch_size)
    _check_named(format, opened, device)
    return _load(format, opened, device, threads)


def pick_rung(opened: Opened, format: Format = "auto", device: str | None = None) -> Rung:
    """The rung of this name or, of ``auto``, the one that was fastest where the export was made, without loading it.

    Raises:
        UsageError: as of ``choose``.
    """
    if format != "auto":
        _check_named(format, opened, device)
        return format
    obstacles: list[str] = []
    rows = _worthwhile(opened.export, device, obstacles)
    if not rows:
        _check_eager(opened, obstacles)
    return rows[0].name if rows else "eager"


def sample_inputs(bundle: Bundle, count: int) -> Inputs | None:
    """Inputs of at most ``count`` of the bundle's own samples; none if it carries none."""
    samples = golden_samples(bundle.path) or calibration_samples(bundle.path)
    encoded = encode_all(bundle.preprocessor, [sample.item for sample in samples[:count]])
    return bundle.preprocessor.collate(encoded) if encoded else None


def check_device(rung: Rung, device: str | None) -> None:
    """Checks that a rung runs on a device; none is what the rung was made for.

    Raises:
        UsageError: it doesn't.
    """
    if is_gpu(rung) and device is not None and _is_cpu(device):
        raise UsageError(f"{rung} runs on a GPU alone: name one as the device, or choose eager")
    if rung not in (*MOVABLE, *GPU_RUNGS) and not _is_cpu(device):
        raise UsageError(f"{rung} runs on the CPU alone: leave out the device {device}, or choose eager")


def _check_named(rung: Rung, opened: Opened, device: str | None) -> None:
    check_device(rung, device)
    if rung == "eager":
        return
    bundle, export = opened
    if export is None:
        raise UsageError(
            f"{rung} isn't there, as nothing was exported; export it first: trainyard export {bundle.path}"
        )
    row = export.facts.row(rung)
    if row is None:
        raise UsageError(f"{rung} isn't in {export.path}; export it first: trainyard export {bundle.path}")
    if row.file is None:
        raise UsageError(f"{rung} was {row.status} when it was exported ({row.reason}): choose another format")
    if row.status != "passed":
        log.warning("%s is %s: %s", rung, row.status, row.reason)
    if missing := _missing_flags(row):
        raise UsageError(
            f"{rung} needs a processor with {missing}, which this one is without: "
            "export on a machine of this kind, or choose another format"
        )


def _auto(opened: Opened, device: str | None, threads: int | None, batch_size: int) -> Chosen:
    obstacles: list[str] = []
    rows = _worthwhile(opened.export, device, obstacles)
    inputs = sample_inputs(opened.bundle, min(batch_size, TIMED_ITEMS)) if rows else None
    while rows:
        near = [row for row in rows if _speed(row) * NEAR >= _speed(rows[0])]
        if loaded := _load_all(near, opened, device, threads, inputs, obstacles):
            return _fastest(loaded, inputs)
        rows = rows[len(near) :]
    _check_eager(opened, obstacles)
    return _load("eager", opened, device, threads)


def _worthwhile(export: Export | None, device: str | None, obstacles: list[str]) -> list[FormatRow]:
    """The ``_candidates``; none where ``eager`` was the fastest and can run too."""
    if export is None or (_is_cpu(device) and export.facts.recommended == "eager" and find_spec("torch")):
        return []
    return _candidates(export, device, obstacles)


def _check_eager(opened: Opened, obstacles: Sequence[str]) -> None:
    if find_spec("torch") is None:
        why = "; ".join([*obstacles, "eager needs the package torch"])
        raise UsageError(
            f"nothing of {opened.bundle.path} can run here ({why}): "
            "install what is missing, or export on a machine of this kind"
        )


def _candidates(export: Export, device: str | None, obstacles: list[str]) -> list[FormatRow]:
    """The rungs that passed and can run here, the fastest first; why others can't goes to ``obstacles``."""
    rows = []
    for row in export.facts.formats:
        if row.status != "passed" or row.file is None or is_gpu(row.name) == _is_cpu(device):
            continue
        if is_gpu(row.name) and (row.speedup or 0) <= 1:  # of the time that eager took on that GPU
            continue
        package = "onnxruntime" if row.name.startswith("onnx") else "torch"
        if find_spec(package) is None:
            obstacles.append(f"{row.name} needs the package {package}")
        elif missing := _missing_flags(row):
            obstacles.append(f"{row.name} needs a processor with {missing}")
        else:
            rows.append(row)
    return sorted(rows, key=_speed, reverse=True)


def _load_all(
    rows: Sequence[FormatRow],
    opened: Opened,
    device: str | None,
    threads: int | None,
    inputs: Inputs | None,
    obstacles: list[str],
) -> list[Chosen]:
    """Those that load and answer a first call."""
    loaded = []
    for row in rows:
        try:
            one = _load(row.name, opened, device, threads)
            if inputs is not None:
                one.runtime.logits(inputs)
            loaded.append(one)
        except Exception as error:  # the runtimes' errors have no base in common
            obstacles.append(f"{row.name} doesn't load: {error}")
            log.warning("%s is passed over, because it can't be loaded: %s", row.name, error)
    return loaded


def _load(rung: Rung, opened: Opened, device: str | None, threads: int | None) -> Chosen:
    row = opened.export.facts.row(rung) if opened.export else None
    file = opened.export.path / row.file if opened.export and row and row.file else None
    return Chosen(rung, open_runtime(rung, opened.bundle, file, device, threads))


def _fastest(loaded: Sequence[Chosen], inputs: Inputs | None) -> Chosen:
    """The one of the least median time, timed in turns; without inputs the first."""
    if inputs is None or len(loaded) == 1:
        return loaded[0]
    rounds: list[list[float]] = []
    start = time.perf_counter()
    while len(rounds) < MIN_ROUNDS or time.perf_counter() - start < SECONDS:
        rounds.append([_seconds(one.runtime, inputs) for one in loaded])
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    for one, median in zip(loaded, medians, strict=True):
        log.info("%s: %.2f ms a call", one.rung, 1000 * median)
    return loaded[medians.index(min(medians))]


def _seconds(runtime: Runtime, inputs: Inputs) -> float:
    time.sleep(REST)
    runtime.logits(inputs)  # wakes the threads and fills the caches
    start = time.perf_counter()
    runtime.logits(inputs)
    return time.perf_counter() - start


def _speed(row: FormatRow) -> float:
    return row.throughput or 0.0


def _missing_flags(row: FormatRow) -> str:
    return " and ".join(sorted(set(row.needs) - set(this_cpu().flags)))


def _is_cpu(device: str | None) -> bool:
    return device is None or device.startswith("cpu")
