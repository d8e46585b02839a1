"""Load of a number of clients who each ask again as soon as they are answered: what a server can do at most.

It tells which of two settings is the better one. How a server feels to users who come when they like, it doesn't tell:
they don't wait for each other's answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle, islice

import aiohttp
import numpy as np

from trainyard.client.calls import Request

WARM_UP_SECONDS = 1.0
TIMEOUT = 60.0
"""Seconds that a request may take; then it has failed."""


@dataclass
class Loop:
    """What the clients saw.

    Attributes:
        seconds: Time that was measured, without the warm-up.
        latencies: Seconds of each request that was answered in that time.
        failures: Requests in that time that weren't answered, or otherwise than by 200; what was said to one of them.
    """

    seconds: float
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def requests_per_second(self) -> float:
        """Of those that were answered."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds within which so many per cent of the requests were answered; infinite if none was."""
        return 1000 * float(np.percentile(self.latencies, percent)) if self.latencies else float("inf")


async def run_clients(
    url: str, headers: Mapping[str, str], requests: Sequence[Request], clients: int, seconds: float
) -> Loop:
    """Has clients ask for a while.

    Args:
        url: Of the server.
        headers: Of each request, besides its own.
        requests: What is asked, in turn; each client begins at another.
        clients: How many requests are on their way at once.
        seconds: Time to measure, after ``WARM_UP_SECONDS``.
    """
    loop = Loop(seconds)
    start = time.perf_counter() + WARM_UP_SECONDS
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(f"{url}/", headers=headers, connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(_client(session, _from(requests, i), start, loop) for i in range(clients)))
    return loop


def _from(requests: Sequence[Request], first: int) -> cycle[Request]:
    return cycle([*islice(cycle(requests), first % len(requests), first % len(requests) + len(requests))])


async def _client(session: aiohttp.ClientSession, requests: cycle[Request], start: float, loop: Loop) -> None:
    end = start + loop.seconds
    for request in requests:
        began = time.perf_counter()
        if began >= end:
            return
        failure = await _ask(session, request)
        ended = time.perf_counter()
        if start <= ended < end:
            if failure is None:
                loop.latencies.append(ended - began)
            else:
                loop.failures.append(failure)
        if failure is not None:
            await asyncio.sleep(0.01)  # a server that refuses at once isn't asked thousands of times


async def _ask(session: aiohttp.ClientSession, request: Request) -> str | None:
    """Asks once; gives what went wrong, if something did."""
    try:
        async with session.post(request.path, data=request.body, headers=request.headers) as reply:
            content = await reply.read()
            return None if reply.status == HTTPStatus.OK else f"{reply.status} {content[:200].decode(errors='replace')}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
