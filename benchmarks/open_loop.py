"""Open-loop load for `overload.py` and `attacks.py`: requests come when they are due, whether others were answered.

It counts from the moment at which a request was due, so that time in which it couldn't be sent counts too. It speaks
HTTP by itself, for a tenth of the CPU time of a client library: it shares the machine with the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

TIMEOUT = 60.0
"""Seconds until what isn't answered has failed."""
FAILED, REFUSED = 0, -1
"""The status of what wasn't answered, and of what no connection was taken for."""


@dataclass
class Seen:
    """What came of the requests, in the order of their ends.

    Attributes:
        due: When each was due, in seconds from the start.
        seconds: Until it was answered.
        statuses: Of HTTP, or ``FAILED`` or ``REFUSED``.
    """

    due: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def percentile_ms(self, status: int, percent: float = 99) -> float:
        """Milliseconds within which so many per cent of the answers of a status came; 0 if there was none."""
        taken = [seconds for seconds, one in zip(self.seconds, self.statuses, strict=True) if one == status]
        return 1000 * float(np.percentile(taken, percent)) if taken else 0.0

    def share(self, status: int) -> float:
        """Of all answers."""
        return self.statuses.count(status) / len(self.statuses)

    def errors(self, *expected: int) -> int:
        """Answers of other statuses."""
        return sum(status not in expected for status in self.statuses)


def request_head(url: str, path: str, token: str, content_type: str, length: int) -> bytes:
    """The head of a request."""
    lines = [f"POST /{path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", f"Authorization: Bearer {token}",
             f"Content-Type: {content_type}", f"Content-Length: {length}"]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


async def send_at_rate(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> Seen:
    """Sends whole requests in turn, so many a second at random moments, as independent clients do."""
    loop, seen, idle = asyncio.get_running_loop(), Seen(), list[_Connection]()
    address = urlsplit(url)
    moments = np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds)))
    began = time.perf_counter()

    async def one(number: int, due: float) -> None:
        status = FAILED
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = idle.pop() if idle else None
                if connection is None or connection.is_closed:
                    _, connection = await loop.create_connection(_Connection, address.hostname, address.port)
                status = await connection.ask(requests[number % len(requests)])
                idle.append(connection)
        except ConnectionRefusedError:
            status = REFUSED
        except (OSError, TimeoutError):
            pass
        seen.due.append(due)
        seen.seconds.append(time.perf_counter() - began - due)
        seen.statuses.append(status)

    async with asyncio.TaskGroup() as group:
        for number, due in enumerate(moments):
            if (wait := due - (time.perf_counter() - began)) > 0:
                await asyncio.sleep(wait)
            group.create_task(one(number, float(due)))
    for connection in idle:
        connection.transport.close()
    return seen


class _Connection(asyncio.Protocol):
    """One request after another."""

    transport: asyncio.Transport
    is_closed = False

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Sends a request; gives the status of the answer."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and self._answer and not self._answer.done():
            lower = head.lower()
            length = int(lower.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
            if len(body) >= length:
                self._answer.set_result(int(head.split(b" ", 2)[1]))
                if b"connection: close" in lower:
                    self.is_closed = True
