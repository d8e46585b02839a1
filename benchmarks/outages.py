"""What it costs when a worker or Java is killed, or a worker is stopped, while a server is under load.

    python benchmarks/outages.py RUN --cores 2

RUN is a run with an export. Two workers answer batches of up to `BATCH` from `CLIENTS` clients that ask again and again
without retries. Counted are the requests that were in hand and got no answer, those that were refused meanwhile (503 at
once), and the seconds until the server is whole again: ready, with both workers.
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

from measure import Figure, folder, median, parser, report, start

if TYPE_CHECKING:
    from trainyard.preprocess.base import Item
    from trainyard.torchserve.running import Running

MODEL = "model"
WORKERS, BATCH, CLIENTS = 2, 8, 16
SETTLE, QUICK_SETTLE = 2.0, 0.5
"""Seconds of load before an outage, and after it is over."""
TIMEOUT = 120.0
"""Seconds until it is given up."""
PAUSE = 0.02
"""Seconds that a client waits after a request that failed."""
REFUSED = ("being loaded", "can't be reached")
"""What is said at once to requests that no worker has."""
OUTAGES = {
    "kill -9 of a worker": (signal.SIGKILL, "worker", 5.0),
    "SIGSTOP of a worker": (signal.SIGSTOP, "worker", 10.0),
    "kill -9 of Java": (signal.SIGKILL, "java", 15.0),
}
"""What is done to which process, and the most seconds until the server is whole again."""


@dataclass
class Seen:
    """What the clients saw: how many answers there were, and what failed."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)


def main(words: list[str] | None = None) -> None:
    """Measures failures and seconds, the median of some rounds."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("run", type=folder, metavar="RUN", help="a run with an export")
    arguments = start(options, words, ("aiohttp", "httpx2", "psutil"))
    from trainyard.artifacts.bundle import Bundle
    from trainyard.artifacts.samples import golden_samples
    from trainyard.torchserve.running import running

    item = golden_samples(Bundle.open(Path(arguments.run)).path)[0].item
    settle = QUICK_SETTLE if arguments.quick else SETTLE
    figures = []
    for name, (number, kind, most_seconds) in OUTAGES.items():
        # A server each: Java is started again a few times only.
        with running([f"{MODEL}={arguments.run}"], ["--workers", f"{WORKERS}", "--batch-size", f"{BATCH}"]) as server:
            rounds = [outage(server, item, number, kind, settle) for _ in range(min(arguments.rounds, 5))]
        lost, refused, seconds = zip(*rounds, strict=True)
        in_hand = BATCH if kind == "worker" else CLIENTS
        figures += [
            Figure(f"{name}: requests lost, the most of a round", max(lost), "", at_most=in_hand),
            Figure(f"{name}: requests refused, the most of a round", max(refused), ""),
            Figure(f"{name}: until all are back, the median", median(seconds), "s", at_most=most_seconds),
            Figure(f"{name}: until all are back, the longest", max(seconds), "s"),
        ]
    report(figures, arguments)


def outage(server: Running, item: Item, number: signal.Signals, kind: str, settle: float) -> tuple[int, int, float]:
    """Sends a signal under load; gives the requests that were lost and refused, and the seconds until all are back."""
    with load(server, item) as seen:
        time.sleep(settle)
        before = processes(server, kind)
        began = time.monotonic()
        os.kill(min(before), number)
        _wait(lambda: processes(server, kind) - before and is_whole(server))
        seconds = time.monotonic() - began
        time.sleep(settle)
    refused = sum(any(words in failure for words in REFUSED) for failure in seen.failed)
    return len(seen.failed) - refused, refused, seconds


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
                    seen.answered += 1
                except TrainyardError as error:
                    seen.failed.append(str(error))
                    time.sleep(PAUSE)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        ended.set()
        for client in clients:
            client.join()


def processes(server: Running, kind: str) -> set[int]:
    """Java, or the workers."""
    import psutil

    word = "model_service_worker.py" if kind == "worker" else "org.pytorch.serve.ModelServer"
    found = set()
    for process in psutil.Process(server.pid).children(recursive=True):
        try:
            if any(one.endswith(word) for one in process.cmdline()):
                found.add(process.pid)
        except psutil.Error:  # it has just ended
            continue
    return found


def is_whole(server: Running) -> bool:
    """Whether it is ready, and each worker has loaded the model."""
    import json
    import urllib.request

    from trainyard.base.errors import UsageError
    from trainyard.client.access import read_token

    url, key_file = f"{server.facts['management']}/models/{MODEL}", Path(server.facts["management_token_file"])
    try:
        headers = {"Authorization": f"Bearer {read_token(key_file, 'management')}"}
        with urllib.request.urlopen(f"{server.inference_url}/v2/health/ready", timeout=TIMEOUT):
            pass
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            [version] = json.load(response)
    except (OSError, ValueError, UsageError):  # Java starts: there is no key yet
        return False
    return [worker["status"] for worker in version["workers"]] == ["READY"] * WORKERS


def _wait(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < end, "it didn't come back"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
