"""Chooses how an archive is served by trying it: workers x threads x batch sizes, through the real server.

The load is that of a number of clients who each ask again as soon as they are answered. It tells which of two settings
is the better one. How a server feels to users who come when they like, it doesn't tell: they don't wait for each
other's answers.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import numpy as np

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import Opened
from trainyard.artifacts.samples import calibration_samples, golden_samples
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import TrainyardError, UsageError
from trainyard.client.access import bearer
from trainyard.client.messages import Request, split
from trainyard.http.request_types import TOP_K
from trainyard.torchserve.archive import Model, make_archive
from trainyard.torchserve.running import running
from trainyard.torchserve.settings import Settings

log = logging.getLogger(__name__)

BATCH_SIZES = (1, 4, 8, 16, 32)
GPU_WORKERS = (1, 2, 4)
MOST_CLIENTS = 128
"""What the queue of a model takes by default."""
NEAR = 0.97
"""Throughputs from this share of the best on are alike; of those the quickest answer is the better one."""
SECONDS = 4.0
"""For each of the settings, besides the start of the server and a warm-up."""
WARM_UP_SECONDS = 1.0
TIMEOUT = 60.0
"""Seconds that a request may take; then it has failed."""
PAUSE = 0.01
"""Seconds that a client waits after a failure: a server that refuses at once isn't asked thousands of times."""
NAME = "model"
TRIED = ("workers", "threads", "batch_size")


@dataclass(frozen=True)
class Measured:
    """What the server did with some settings.

    Attributes:
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

    def __str__(self) -> str:
        one = self.settings
        times = f"{self.requests_per_second:.0f} requests/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"
        settings = f"workers {one.workers}, threads {one.threads}, batch size {one.batch_size}"
        return f"{settings}: {f'failed: {self.failure}' if self.failure else times}"

    def keeps(self, p99_ms: float) -> bool:
        """Whether 99 % of the requests were answered in this time."""
        return not self.failure and self.p99_ms <= p99_ms

    def to_dict(self) -> Json:
        """For ``tuning.json``."""
        tried = self.settings.model_dump(include={*TRIED, "max_batch_delay_ms"})
        return {**tried, **{name: value for name, value in asdict(self).items() if name != "settings"}}


class NothingMeetsError(TrainyardError):
    """No settings keep the bound."""


def tune_archive(opened: Opened, chosen: Settings, p99_ms: float, seconds: float = SECONDS) -> tuple[Settings, Json]:
    """Tries the grid with a format, on this machine, through the server that ``trainyard serve`` starts.

    Args:
        opened: The bundle, with the export that the format is of.
        chosen: The format, and what isn't to be tried, but left as it is.
        p99_ms: Milliseconds within which 99 % of the requests must be answered.
        seconds: Time for each of the settings.

    Returns:
        The best, and the content of the archive's ``tuning.json``.

    Raises:
        UsageError: the bundle carries no samples to ask for.
        NothingMeetsError: none keeps the bound.
    """
    requests, candidates, cpu = sample_requests(opened.bundle), grid(chosen), this_cpu()
    log.info(
        "trying up to %d settings for a p99 of %g ms at most; each takes some ten seconds", len(candidates), p99_ms
    )
    with tempfile.TemporaryDirectory(prefix="trainyard-tune-") as folder:
        path = make_archive(Model(NAME, "1.0", candidates[0], opened), Path(folder) / f"{NAME}.mar")
        measured = search(candidates, p99_ms, lambda one: measure(path, one, requests, seconds))
    best = choose(measured, p99_ms)
    log.info("chosen: %s", best)
    return best.settings, {
        "p99_ms": p99_ms,
        "seconds": seconds,
        "machine": {"cpu": cpu.name, "cores": cpu.cores},
        "chosen": best.to_dict(),
        "measured": [one.to_dict() for one in measured],
    }


def sample_requests(bundle: Bundle) -> list[Request]:
    """Requests for the bundle's own samples.

    Raises:
        UsageError: it carries none.
    """
    samples = golden_samples(bundle.path) or calibration_samples(bundle.path)
    if not samples:
        raise UsageError(f"{bundle.path} carries no samples to ask for: leave out --tune, and give --workers and so on")
    return [call.request(NAME, None) for sample in samples for call in split([sample.item], TOP_K)]


def grid(chosen: Settings) -> list[Settings]:
    """The settings to try, small batches first.

    On processors, workers x threads that take at least half of the cores and no more than there are.
    """
    base, cores = chosen.for_machine(chosen.format), this_cpu().cores
    steps = sorted({1 << power for power in range(cores.bit_length())} | {cores})

    def values(name: str, tried: Sequence[int]) -> Sequence[int]:
        return [getattr(chosen, name)] if name in chosen.model_fields_set else tried

    is_gpu = base.device == "cuda"
    workers, threads = (GPU_WORKERS, [base.threads]) if is_gpu else (steps, steps)
    all_pairs = list(itertools.product(values("workers", workers), values("threads", threads)))
    pairs = [(w, t) for w, t in all_pairs if is_gpu or cores / 2 <= w * t <= cores] or all_pairs[:1]
    return [
        base.model_copy(update={"workers": workers, "threads": threads, "batch_size": size})
        for size in values("batch_size", BATCH_SIZES)
        for workers, threads in pairs
    ]


def search(candidates: Iterable[Settings], p99_ms: float, measure: Callable[[Settings], Measured]) -> list[Measured]:
    """Measures the candidates, and says a line of each.

    Where a small batch takes too long, larger ones, which take longer, aren't tried.
    """
    measured: list[Measured] = []
    slow: set[tuple[int, int]] = set()
    for settings in candidates:
        if (pair := (settings.workers, settings.threads)) not in slow:
            measured.append(one := measure(settings))
            log.info("%s%s", one, "" if one.failure or one.keeps(p99_ms) else ", too slow")
            if not one.keeps(p99_ms):
                slow.add(pair)
    return measured


def choose(measured: Sequence[Measured], p99_ms: float) -> Measured:
    """The highest throughput of those that keep the bound; of those that come near it, the quickest.

    Raises:
        NothingMeetsError: none keeps it.
    """
    sound = [one for one in measured if not one.failure]
    if not sound:
        raise NothingMeetsError(f"nothing could be measured ({measured[0].failure}): give --workers and so on instead")
    keeping = [one for one in sound if one.keeps(p99_ms)]
    if not keeping:
        quickest = min(sound, key=lambda one: one.p99_ms)
        raise NothingMeetsError(
            f"no settings answer 99 % of the requests within {p99_ms:g} ms here, the quickest took "
            f"{quickest.p99_ms:.1f} ms ({quickest}): raise --p99, or choose a faster format"
        )
    enough = NEAR * max(one.requests_per_second for one in keeping)
    return min((one for one in keeping if one.requests_per_second >= enough), key=lambda one: one.p99_ms)


def measure(archive: Path, settings: Settings, requests: Sequence[Request], seconds: float) -> Measured:
    """Starts a server with these settings, and has clients ask it for a while."""
    clients = min(2 * settings.workers * settings.batch_size, MOST_CLIENTS)
    words = [f"--{name.replace('_', '-')}={getattr(settings, name)}" for name in TRIED]
    try:
        with running([archive], words) as server:
            headers = bearer(server.token, None)
            latencies = asyncio.run(run_clients(server.inference_url, headers, requests, clients, seconds))
    except TrainyardError as error:
        return Measured(settings, clients, failure=str(error))
    if not latencies:
        return Measured(settings, clients, failure=f"nothing was answered within {seconds:g} s")
    p50, p99 = 1000 * np.percentile(latencies, [50, 99])
    return Measured(settings, clients, len(latencies) / seconds, float(p50), float(p99))


async def run_clients(
    url: str, headers: Mapping[str, str], requests: Sequence[Request], clients: int, seconds: float
) -> list[float]:
    """Has so many clients ask for a while, after ``WARM_UP_SECONDS``; each begins with another of the requests.

    Returns:
        Seconds of each request that was answered in this time.

    Raises:
        TrainyardError: one wasn't.
    """
    latencies: list[float] = []
    start = time.perf_counter() + WARM_UP_SECONDS

    async def client(session: aiohttp.ClientSession, first: int) -> None:
        for turn in itertools.count(first):
            request, began = requests[turn % len(requests)], time.perf_counter()
            if began >= start + seconds:
                return
            try:
                async with session.post(request.path, data=request.body, headers=request.headers) as reply:
                    content = await reply.read()
                failure = "" if reply.ok else f"{reply.status} {content[:200].decode(errors='replace')}"
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = f"{type(error).__name__}: {error}"
            ended = time.perf_counter()
            is_measured = start <= ended < start + seconds
            if failure and is_measured:
                raise TrainyardError(failure)
            if failure:
                await asyncio.sleep(PAUSE)
            elif is_measured:
                latencies.append(ended - began)

    timeout, connector = aiohttp.ClientTimeout(total=TIMEOUT), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"{url}/", headers=headers, connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(session, first) for first in range(clients)))
    return latencies
