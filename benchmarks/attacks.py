"""What clients that attack a server cost all others.

    python benchmarks/attacks.py RUN --cores 2

RUN is a run with an export. Others ask `RATE` times a second, first in peace, then while each attack goes on: four
connections that declare 16 MB and send nothing; 600 uploads that drip; 300 connections that are silent, and 300 with
half a head. Bars: others see no error, and their p99 at most doubles. At the end the server gets SIGTERM under load,
with `--lame-duck`: no connection may be refused before readiness has said no for that time, and what it accepted is
answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from measure import Figure, folder, median, parser, report, start

if TYPE_CHECKING:
    from trainyard.torchserve.running import Running

MODEL = "model"
RATE = 50.0
SECONDS, QUICK_SECONDS = 15.0, 2.0
"""Of each attack, and of the peace before it."""
TIMES = 2.0
LAME_DUCK = 5  # as in the container
DRIP_BYTES, DRIP_SECONDS = 1_000, 0.5
LARGEST, UPLOAD = 16_000_000, 100_000
"""Bytes that are declared."""


def main(words: list[str] | None = None) -> None:
    """Measures each attack after a time of peace, then the end."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("run", type=folder, metavar="RUN", help="a run with an export")
    arguments = start(options, words, ("aiohttp", "psutil"))
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    report(asyncio.run(measure(Path(arguments.run), seconds, arguments.rounds)), arguments)


async def measure(run: Path, seconds: float, rounds: int) -> list[Figure]:
    """The figures of one server."""
    from open_loop import request_head, send_at_rate

    from serving import items_of
    from trainyard.client.messages import split
    from trainyard.http.request_types import TOP_K
    from trainyard.torchserve.running import running

    figures = []
    asked = next(split(items_of(run)[:1], TOP_K)).request(MODEL, None)
    with running([f"{MODEL}={run}"], ["--lame-duck", str(LAME_DUCK)]) as server:
        url, token = server.inference_url, server.token

        def head(length: int) -> bytes:
            return request_head(url, asked.path, token, asked.content_type, length)

        attacks = {
            "4 that declare 16 MB": [head(LARGEST)] * 4,
            "600 slow uploads": [head(UPLOAD) + b"x"] * 600,
            "300 silent and 300 with half a head": [b""] * 300 + [b"POST /predictions/m HTTP/1.1\r\nHost"] * 300,
        }
        requests = [head(len(asked.body)) + asked.body]
        await send_at_rate(url, requests, RATE, seconds / 3)
        for title, starts in attacks.items():
            times, errors = [], 0
            for _ in range(rounds):
                peace = await send_at_rate(url, requests, RATE, seconds)
                async with under_attack(url, starts, drips=title.startswith("600")):
                    war = await send_at_rate(url, requests, RATE, seconds)
                times.append(war.percentile_ms(200) / peace.percentile_ms(200))
                errors += war.errors(200)
                print(f"  {title}: statuses {dict(Counter(war.statuses))}", file=sys.stderr, flush=True)
            figures.append(Figure(f"{title}: errors of others", errors, "", at_most=0))
            figures.append(Figure(f"{title}: p99 of others, by that of peace", median(times), "", at_most=TIMES))
        figures += await end(server, requests)
    return figures


async def end(server: Running, requests: list[bytes]) -> list[Figure]:
    """SIGTERM under load, with readiness watched."""
    from open_loop import REFUSED, send_at_rate

    began = time.perf_counter()
    loading = asyncio.create_task(send_at_rate(server.inference_url, requests, RATE, LAME_DUCK + 4.0))
    await asyncio.sleep(1)
    server.process.send_signal(signal.SIGTERM)
    told = await until_not_ready(server.inference_url) - began
    seen = await loading
    print(f"  SIGTERM: statuses {dict(Counter(seen.statuses))}", file=sys.stderr, flush=True)
    refused = min(due + s for due, s, one in zip(seen.due, seen.seconds, seen.statuses, strict=True) if one == REFUSED)
    lost = seen.errors(200, 503, REFUSED)
    return [
        Figure("SIGTERM: requests that weren't answered, but for refused connections", lost, "", at_most=0),
        Figure("SIGTERM: from not ready to a refused connection", refused - told, "s", at_least=LAME_DUCK),
    ]


@asynccontextmanager
async def under_attack(url: str, starts: list[bytes], drips: bool) -> AsyncIterator[None]:
    """Holds a connection for each of these starts of requests; opens another when one is ended."""
    address = urlsplit(url)

    async def attack(begin: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                try:
                    writer.write(begin)
                    while drips and not reader.at_eof():
                        await asyncio.sleep(DRIP_SECONDS)
                        writer.write(b"x" * DRIP_BYTES)
                        await writer.drain()
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(DRIP_SECONDS)

    tasks = [asyncio.create_task(attack(begin)) for begin in starts]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_not_ready(url: str) -> float:
    """When readiness says no; infinite if it never did while connections were taken."""
    import aiohttp

    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{url}/v2/health/ready") as response:
                    if response.status == 503:
                        return time.perf_counter()
                await asyncio.sleep(0.02)
    return float("inf")


if __name__ == "__main__":
    main()
