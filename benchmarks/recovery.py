"""What `kill -9` of a worker costs while a server is under load.

    python benchmarks/recovery.py RUN --cores 2

RUN is a run with an export. One worker answers batches of up to `BATCH` from `CLIENTS` clients, and is killed. Bars: at
most the requests of the batch that it had in hand fail, and another answers within 5 seconds.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Figure, describe, folder, median, parser, report, start

if TYPE_CHECKING:
    from trainyard.preprocess.base import Item
    from trainyard.torchserve.running import Running

MODEL = "model"
BATCH, CLIENTS = 8, 16
SETTLE, QUICK_SETTLE = 2.0, 0.5
"""Seconds of load before a kill, and after it is over."""
TIMEOUT = 120.0
"""Seconds until it is given up."""
AT_ONCE = 0.1
"""Seconds in which answers still arrive that the worker gave before it was killed."""
MOST_SECONDS = 5.0


@dataclass
class Seen:
    """What the clients saw: when an answer came, and what failed."""

    answered: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main(words: list[str] | None = None) -> None:
    """Measures failures and seconds, the median of some kills."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("run", type=folder, metavar="RUN", help="a run with an export")
    arguments = options.parse_args(words)
    start(arguments, ("aiohttp", "httpx2", "psutil"))
    from trainyard.artifacts.bundle import Bundle
    from trainyard.artifacts.samples import golden_samples
    from trainyard.torchserve.running import running

    facts = describe()
    item = golden_samples(Bundle.open(Path(arguments.run)).path)[0].item
    with running([f"{MODEL}={arguments.run}"], ["--workers", "1", "--batch-size", str(BATCH)]) as server:
        settle = QUICK_SETTLE if arguments.quick else SETTLE
        kills = [kill_once(server, item, settle) for _ in range(arguments.rounds)]
    failures, seconds = zip(*kills, strict=True)
    figures = [
        Figure("requests that failed, the most of a kill", max(failures), "", at_most=BATCH),
        Figure("from the kill to the next answer, the median", median(seconds), "s"),
        Figure("from the kill to the next answer, the longest", max(seconds), "s", at_most=MOST_SECONDS),
    ]
    report(facts, figures, arguments)


def kill_once(server: Running, item: Item, settle: float) -> tuple[int, float]:
    """Kills the worker under load; gives the requests that failed, and the seconds until the next answer."""
    with load(server, item) as seen:
        time.sleep(settle)
        killed = time.monotonic()
        os.kill(worker(server), signal.SIGKILL)
        _wait(lambda: any(at > killed + AT_ONCE for at in seen.answered))
        time.sleep(settle)
    return len(seen.failed), min(at for at in seen.answered if at > killed + AT_ONCE) - killed


@contextmanager
def load(server: Running, item: Item) -> Iterator[Seen]:
    """Clients that ask again and again, without retries."""
    from trainyard.base.errors import TrainyardError
    from trainyard.client.client import Client

    seen, ended = Seen(), threading.Event()

    def ask() -> None:
        with Client(server.inference_url, token=server.token, retries=0) as client:
            while not ended.is_set():
                try:
                    client.predict(MODEL, [item])
                    seen.answered.append(time.monotonic())
                except TrainyardError as error:
                    seen.failed.append(str(error))

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        ended.set()
        for client in clients:
            client.join()


def worker(server: Running) -> int:
    """The process of the only worker."""
    import psutil

    [process] = [
        one
        for one in psutil.Process(server.pid).children(recursive=True)
        if any(word.endswith("model_service_worker.py") for word in one.cmdline())
    ]
    return process.pid


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < end, "no worker came back"
        time.sleep(0.01)


if __name__ == "__main__":
    main()
