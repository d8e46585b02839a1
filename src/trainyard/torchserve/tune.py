"""Chooses how an archive is served by trying it: workers x threads x batch sizes, through the real server."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import FormatName, Opened
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import TrainyardError, UsageError
from trainyard.client.access import bearer
from trainyard.client.calls import Request, split
from trainyard.http.request_types import TOP_K
from trainyard.torchserve.archive import make_archive
from trainyard.torchserve.closed_loop import Loop, run_clients
from trainyard.torchserve.running import NotServedError, running
from trainyard.torchserve.settings import Chosen, Device, Settings, choose_settings

log = logging.getLogger(__name__)

BATCH_SIZES = (1, 4, 8, 16, 32)
DELAYS = (0, 5, 10)
"""Milliseconds that are tried of the best, besides the default."""
GPU_WORKERS = (1, 2, 4)
MOST_CLIENTS = 128
"""What the queue of a model takes by default."""
NEAR = 0.97
"""Throughputs from this share of the best on are alike; of those the quickest answer is the better one."""
SECONDS = 4.0
"""For each of the settings, besides the start of the server and a warm-up."""

NAME = "model"


@dataclass(frozen=True)
class Measured:
    """What the server did with some settings.

    Attributes:
        settings: These.
        clients: Requests that were on their way at once: enough for each worker to have a batch, and another waiting.
        requests_per_second: Answered.
        p50_ms: Half of the requests took no longer.
        p99_ms: 99 % of the requests took no longer.
        failure: Why these settings are out of question: what was said to a request that failed, or by a server that
            didn't start.
    """

    settings: Settings
    clients: int
    requests_per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    failure: str = ""

    def to_dict(self) -> Json:
        """For ``tuning.json``."""
        names = ("workers", "threads", "batch_size", "max_batch_delay_ms")
        chosen = {name: getattr(self.settings, name) for name in names}
        return {**chosen, **{name: value for name, value in asdict(self).items() if name != "settings"}}


Measure = Callable[[Settings], Measured]


class NothingMeetsError(TrainyardError):
    """No settings keep the bound."""


def tune_archive(
    opened: Opened, format: FormatName, chosen: Chosen, device: Device, p99_ms: float, seconds: float = SECONDS
) -> tuple[Measured, list[Measured]]:
    """Tries the grid with a format, on this machine, through the server that ``trainyard serve`` starts.

    Args:
        opened: The bundle, with the export that the format is of.
        format: What answers.
        chosen: What isn't to be tried, but left as it is.
        device: What it runs on.
        p99_ms: Milliseconds within which 99 % of the requests must be answered.
        seconds: Time for each of the settings.

    Returns:
        The best, and all that were tried.

    Raises:
        NothingMeetsError: none keeps the bound.
    """
    requests = sample_requests(opened.bundle)
    with tempfile.TemporaryDirectory(prefix="trainyard-tune-") as folder:
        path = make_archive(opened, format, Path(folder) / f"{NAME}.mar", NAME, "1.0", choose_settings(chosen, device))
        candidates = grid(chosen, device)
        log.info("trying up to %d settings; each starts a server and takes some ten seconds", len(candidates))
        return search(candidates, chosen, p99_ms, lambda one: measure(path, one, requests, seconds))


def sample_requests(bundle: Bundle) -> list[Request]:
    """Requests for the bundle's own samples.

    Raises:
        UsageError: it carries none.
    """
    samples = golden_samples(bundle.path) or calibration_samples(bundle.path)
    if not samples:
        raise UsageError(f"{bundle.path} carries no samples to ask for: leave out --tune, and give --workers and so on")
    return [call.request(NAME, None) for sample in samples for call in split([sample.item], TOP_K)]


def grid(chosen: Chosen, device: Device = "cpu", cores: int | None = None) -> list[Settings]:
    """The settings to try, small batches first.

    On processors, workers x threads that take at least half of the cores and no more than there are.
    """
    cores = cores or this_cpu().cores
    steps = sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})
    some_workers = [chosen.workers] if chosen.workers else steps
    some_threads = [chosen.threads] if chosen.threads else steps
    if device == "cuda":
        pairs = [(workers, 1) for workers in GPU_WORKERS]
    else:
        pairs = [(w, t) for w in some_workers for t in some_threads if cores / 2 <= w * t <= cores]
    pairs = pairs or [(some_workers[0], some_threads[0])]
    found = (Settings(workers, threads, size, device=device) for size in BATCH_SIZES for workers, threads in pairs)
    return list(dict.fromkeys(chosen.applied(settings) for settings in found))


def search(
    candidates: Iterable[Settings], chosen: Chosen, p99_ms: float, measure: Measure
) -> tuple[Measured, list[Measured]]:
    """Measures all candidates and then, of the best, other delays. See ``tune_archive``.

    Where a small batch takes too long, larger ones, which take longer, aren't tried.
    """
    measured: list[Measured] = []
    slow: set[tuple[int, int]] = set()
    for settings in candidates:
        pair = (settings.workers, settings.threads)
        if pair in slow:
            continue
        measured.append(_said(measure(settings)))
        if measured[-1].failure or measured[-1].p99_ms > p99_ms:
            slow.add(pair)
    best = choose(measured, p99_ms)
    if best.settings.batch_size > 1 and chosen.max_batch_delay_ms is None:
        measured += [_said(measure(replace(best.settings, max_batch_delay_ms=delay))) for delay in DELAYS]
    return choose(measured, p99_ms), measured


def choose(measured: Sequence[Measured], p99_ms: float) -> Measured:
    """The highest throughput of those that keep the bound; of those that come near it, the quickest.

    Raises:
        NothingMeetsError: none keeps it.
    """
    sound = [one for one in measured if not one.failure]
    if not sound:
        raise NothingMeetsError(f"nothing could be measured ({measured[0].failure}): give --workers and so on instead")
    keeping = [one for one in sound if one.p99_ms <= p99_ms]
    if not keeping:
        quickest = min(sound, key=lambda one: one.p99_ms)
        raise NothingMeetsError(
            f"no settings answer 99 % of the requests within {p99_ms:g} ms here, the quickest took "
            f"{quickest.p99_ms:.1f} ms ({describe(quickest.settings)}): raise --p99, or choose a faster format"
        )
    enough = NEAR * max(one.requests_per_second for one in keeping)
    return min((one for one in keeping if one.requests_per_second >= enough), key=lambda one: one.p99_ms)


def measure(archive: Path, settings: Settings, requests: Sequence[Request], seconds: float = SECONDS) -> Measured:
    """Starts a server with these settings, and has clients ask it for a while."""
    clients = min(2 * settings.workers * settings.batch_size, MOST_CLIENTS)
    words = {"workers": settings.workers, "threads": settings.threads, "batch-size": settings.batch_size,
             "max-batch-delay": settings.max_batch_delay_ms}  # fmt: skip
    try:
        with running([archive], [f"--{name}={value}" for name, value in words.items()]) as server:
            headers = bearer(server.token, None)
            loop = asyncio.run(run_clients(server.inference_url, headers, requests, clients, seconds))
    except NotServedError as error:
        return Measured(settings, clients, failure=str(error))
    return _measured(settings, clients, loop)


def _measured(settings: Settings, clients: int, loop: Loop) -> Measured:
    if loop.failures or not loop.latencies:
        why = loop.failures[0] if loop.failures else f"nothing was answered within {loop.seconds:g} s"
        return Measured(settings, clients, failure=f"{len(loop.failures)} requests failed: {why}")
    return Measured(
        settings, clients, loop.requests_per_second, p50_ms=loop.percentile_ms(50), p99_ms=loop.percentile_ms(99)
    )


def _said(one: Measured) -> Measured:
    """Shows how far it is."""
    result = one.failure or f"{one.requests_per_second:.0f} requests/s, p99 {one.p99_ms:.1f} ms"
    log.info("%s: %s", describe(one.settings), result)
    return one


def describe(settings: Settings) -> str:
    """For people."""
    counts = f"workers {settings.workers}, threads {settings.threads}, batch size {settings.batch_size}"
    return f"{counts}, delay {settings.max_batch_delay_ms} ms"


def report(best: Measured, measured: Sequence[Measured], p99_ms: float, seconds: float = SECONDS) -> Json:
    """The content of an archive's ``tuning.json``."""
    cpu = this_cpu()
    return {
        "p99_ms": p99_ms,
        "seconds": seconds,
        "machine": {"cpu": cpu.name, "cores": cpu.cores},
        "chosen": best.to_dict(),
        "measured": [one.to_dict() for one in measured],
    }
