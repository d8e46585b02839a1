"""Requests/s of a small model: through our gateway, of the TorchServe behind it asked directly, and of other servers.

    pip install litserve fastapi uvicorn
    python benchmarks/servers.py RUN --cores 2

RUN is a run with an export. The gateway and TorchServe alone have as many workers with the same handler, and batches
of the same size and delay, which TorchServe makes itself where it is alone: what differs is the gateway. LitServe, and
FastAPI with a batcher of some thirty lines, have as many processes with the same predictor, and batches of the same
size and delay. All are up at once and take turns. Bars: with 32 connections, 0.8 of what TorchServe answers alone, and
more than LitServe. A server whose packages are missing is left out. The CPU time of a request, over all processes of a
server, is shown too: on a busy machine it says more than the requests/s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Figure, folder, median, median_ratio, parser, report, start, take_turns

from serving import CONNECTIONS, MODEL, QUICK_SECONDS, SECONDS, cpu_seconds, items_of, send, written

if TYPE_CHECKING:
    from serving import Load
    from trainyard.http.request_types import Accepts, Request
    from trainyard.http.responses import Responder
    from trainyard.torchserve.running import Running
    from trainyard.torchserve.settings import Settings

OURS, ALONE, LITSERVE, FASTAPI = "trainyard", "TorchServe alone", "LitServe", "FastAPI with a batcher"
LEAST = {ALONE: 0.8, LITSERVE: 1.0, FASTAPI: None}
"""The bars, by the others' figures."""
CONTESTANTS = {LITSERVE: "litserve", FASTAPI: "fastapi"}
"""Packages, and files beside this one."""
INSTALL = "pip install litserve fastapi uvicorn"
PATH = f"predictions/{MODEL}"
START_SECONDS, END_SECONDS = 120.0, 15.0


def main(words: list[str] | None = None) -> None:
    """Measures all in turns."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("run", type=folder, metavar="RUN", help="a run with an export")
    arguments = start(options, words, ("aiohttp", "psutil"))
    run = Path(arguments.run)
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    with ExitStack() as stack:
        load = stack.enter_context(written(items_of(run)))
        found = servers(stack, run, load)
        used: dict[str, list[float]] = {name: [] for name in found}
        cases = {name: partial(turn, server, load, seconds, used[name]) for name, server in found.items()}
        turns = take_turns(cases, arguments.rounds)
    figures = [
        Figure(f"{CONNECTIONS} connections: {name}", median(rates), "requests/s") for name, rates in turns.items()
    ]
    figures += [Figure(f"{name}: CPU time of a request", 1000 * median(used[name][1:]), "ms") for name in turns]
    ours = turns.pop(OURS)
    figures += [
        Figure(f"{OURS} / {name}", median_ratio(ours, rates), "", at_least=LEAST[name]) for name, rates in turns.items()
    ]
    report(figures, arguments)


def turn(server: Running, load: Load, seconds: float, used: list[float]) -> float:
    """Requests/s; ``used`` grows by the CPU seconds of one."""
    before = cpu_seconds(server.pid)
    requests, took = send(server, load, seconds)
    used.append((cpu_seconds(server.pid) - before) / requests)
    return requests / took


def servers(stack: ExitStack, run: Path, load: Load) -> dict[str, Running]:
    """All that can be measured here, by their names."""
    from trainyard.torchserve.running import Running, running

    server = stack.enter_context(running([f"{MODEL}={run}"]))
    found = {OURS: server, ALONE: stack.enter_context(naked(run))}
    for name, package in CONTESTANTS.items():
        if importlib.util.find_spec(package) and importlib.util.find_spec("uvicorn"):
            url, process = stack.enter_context(contestant(package, run, load))
            found[name] = Running(process, {**server.facts, "inference": url})  # it takes our token as it would any
        else:
            print(f"{name} is left out, for want of its packages: {INSTALL}", file=sys.stderr)
    return found


@contextlib.contextmanager
def naked(run: Path) -> Iterator[Running]:
    """TorchServe alone; it is asked with its own key."""
    from trainyard.torchserve.running import Running

    file = Path(__file__).with_name("contestant_torchserve.py")
    with subprocess.Popen(
        [sys.executable, file, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline() or sys.exit("TorchServe didn't start"))
        yield Running(process, told)


@contextlib.contextmanager
def contestant(package: str, run: Path, load: Load) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of another server, on loopback, which answers, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = Path(__file__).with_name(f"contestant_{package}.py")
    process = subprocess.Popen([sys.executable, file, run, str(port)], start_new_session=True, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        body = next(load.folder.iterdir()).read_bytes()
        wait_for_answer(process, urllib.request.Request(f"{url}/{PATH}", body, {"Content-Type": load.content_type}))
        yield url, process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left
        process.wait()


def wait_for_answer(process: subprocess.Popen[str], request: urllib.request.Request) -> None:
    """Asks until it is answered.

    Raises:
        SystemExit: the server has ended, or takes too long.
    """
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=END_SECONDS):
            return
        time.sleep(0.1)
    sys.exit(f"{process.args!r} didn't answer")


def settings(run: Path) -> Settings:
    """How our server serves it; the others do likewise."""
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.inference.selection import pick_format
    from trainyard.torchserve.settings import Settings

    return Settings().for_machine(pick_format(open_trusted(run)))


def one_item(body: bytes, accepts: Accepts) -> Request:
    """The request whose body is an item."""
    from trainyard.http.request_types import OCTETS, TEXT
    from trainyard.http.requests import parse_request

    return parse_request(body, OCTETS if accepts.kind == "image" else TEXT, accepts)


def responder(run: Path) -> Responder:
    """What a worker of our server answers with."""
    from trainyard.http.responses import Responder
    from trainyard.inference.predictor import Predictor

    chosen = settings(run)
    predictor = Predictor(run, chosen.format, chosen.device, chosen.batch_size, chosen.threads)
    return Responder(predictor, MODEL, "1.0")


if __name__ == "__main__":
    main()
