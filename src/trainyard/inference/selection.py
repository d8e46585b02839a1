"""Which format answers: the one that was asked for, or the fastest that passed and that this machine can run."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import Export, FormatName, FormatRow, Opened
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import UsageError
from trainyard.formats.base import Runtime
from trainyard.formats.table import find_format
from trainyard.inference.runtimes import open_runtime
from trainyard.preprocess.base import Inputs

log = logging.getLogger(__name__)

NEAR = 1.5
"""Formats that were recorded up to so many times as slow as the best may be the best on another processor. Slower ones
aren't tried: loading torch, only to find that it loses, would take seconds at each start."""
SECONDS = 1.0
"""Time for comparing them."""
TIMED_ITEMS = 8
"""Most items of a call that is timed."""
MIN_ROUNDS = 2
REST = 0.05
"""Seconds before each turn: the threads of the last call spin for up to 40 ms, in the hope of another."""


class Chosen(NamedTuple):
    """A format, loaded."""

    format: FormatName
    runtime: Runtime


def choose(
    opened: Opened,
    format: FormatName = "auto",
    device: str | None = None,
    threads: int | None = None,
    batch_size: int = 32,
) -> Chosen:
    """Loads the format of this name or, of ``auto``, the fastest that passed and can run here.

    That is ``eager`` where no format was faster when they were exported, and where none can run.

    The speeds that the export recorded are of the machine that made it, so those that come near are timed again. On a
    GPU, those that were made for one are compared, and ``eager`` answers where there are none.

    Raises:
        UsageError: there is no such format, it was refused or skipped, or this machine can't run it.
        ModuleNotFoundError: the packages of the named format aren't installed.
        BundleError: the named format can't be loaded.
    """
    if format == "auto":
        return _auto(opened, device, threads, batch_size)
    _check_named(format, opened, device)
    return _load(format, opened, device, threads)


def pick_format(opened: Opened, format: FormatName = "auto", device: str | None = None) -> FormatName:
    """The format of this name or, of ``auto``, the one that was fastest where the export was made, without loading it.

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
    encoded = bundle.preprocessor.encode_many([sample.item for sample in samples[:count]])
    return bundle.preprocessor.collate(encoded) if encoded else None


def check_device(name: FormatName, device: str | None) -> None:
    """Checks that a format runs on a device; none is what the format was made for.

    Raises:
        UsageError: it doesn't, or there is no such format.
    """
    made_for = find_format(name).device
    if made_for == "gpu" and device is not None and _is_cpu(device):
        raise UsageError(f"{name} runs on a GPU alone: name one as the device, or choose eager")
    if made_for == "cpu" and not _is_cpu(device):
        raise UsageError(f"{name} runs on the CPU alone: leave out the device {device}, or choose eager")


def obstacle(row: FormatRow, device: str | None = None) -> str:
    """Why a format can't run here, on this device or by default on the CPU, as in "runs on a GPU alone"; else empty."""
    if row.name == "eager":
        return _missing_package("eager")
    if row.file is None or row.status == "refused":
        return f"was {row.status} when it was exported ({row.reason})"
    try:
        made_for = find_format(row.name).device
    except UsageError:  # it is a project's, and that isn't here
        return "is no format of the library, nor of a project that is installed here"
    if made_for == "gpu" and _is_cpu(device):
        return "runs on a GPU alone"
    if made_for == "cpu" and not _is_cpu(device):
        return "runs on the CPU alone"
    return _missing_flags(row) or _missing_package(row.name)


def _missing_flags(row: FormatRow) -> str:
    missing = " and ".join(sorted(set(row.needs) - set(this_cpu().flags)))
    return f"needs a processor with {missing}" if missing else ""


def _missing_package(name: FormatName) -> str:
    package = find_format(name).package
    return f"needs the package {package}" if find_spec(package) is None else ""


def _check_named(name: FormatName, opened: Opened, device: str | None) -> None:
    check_device(name, device)
    if name == "eager":
        return
    bundle, export = opened
    if export is None:
        raise UsageError(
            f"{name} isn't there, as nothing was exported; export it first: trainyard export {bundle.path}"
        )
    row = export.facts.row(name)
    if row is None:
        raise UsageError(f"{name} isn't in {export.path}; export it first: trainyard export {bundle.path}")
    if row.file is None:
        raise UsageError(f"{name} was {row.status} when it was exported ({row.reason}): choose another format")
    if row.status != "passed":
        log.warning("%s is %s: %s", name, row.status, row.reason)
    if missing := _missing_flags(row):
        raise UsageError(
            f"{name} {missing}, which this one is without: export on a machine of this kind, or choose another format"
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
    if export is None or (_is_cpu(device) and export.facts.recommended == "eager" and not _missing_package("eager")):
        return []
    return _candidates(export, device, obstacles)


def _check_eager(opened: Opened, obstacles: Sequence[str]) -> None:
    if missing := _missing_package("eager"):
        why = "; ".join([*obstacles, f"eager {missing}"])
        raise UsageError(
            f"nothing of {opened.bundle.path} can run here ({why}): "
            "install what is missing, or export on a machine of this kind"
        )


def _candidates(export: Export, device: str | None, obstacles: list[str]) -> list[FormatRow]:
    """The formats that passed and can run here, the fastest first; why others can't goes to ``obstacles``."""
    rows = []
    for row in export.facts.formats:
        if row.status != "passed" or row.file is None:
            continue
        if why := obstacle(row, device):
            obstacles.append(f"{row.name} {why}")
        # Those for GPUs have their speed over the time that eager took on that GPU; others are no match for it there.
        elif _is_cpu(device) or (find_format(row.name).device == "gpu" and (row.speedup or 0) > 1):
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


def _load(name: FormatName, opened: Opened, device: str | None, threads: int | None) -> Chosen:
    row = opened.export.facts.row(name) if opened.export else None
    file = opened.export.path / row.file if opened.export and row and row.file else None
    return Chosen(name, open_runtime(name, opened.bundle, file, device, threads))


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
        log.info("%s: %.2f ms a call", one.format, 1000 * median)
    return loaded[medians.index(min(medians))]


def _seconds(runtime: Runtime, inputs: Inputs) -> float:
    time.sleep(REST)
    runtime.logits(inputs)  # wakes the threads and fills the caches
    start = time.perf_counter()
    runtime.logits(inputs)
    return time.perf_counter() - start


def _speed(row: FormatRow) -> float:
    return row.throughput or 0.0


def _is_cpu(device: str | None) -> bool:
    return device is None or device.startswith("cpu")
