"""Reads bodies as they arrive: no client holds room that it doesn't fill, or takes its time at the cost of others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from trainyard.gateway.compressed import Inflated, encoding_of
from trainyard.gateway.proxy import AGAIN, failure
from trainyard.http.batch import Reply


@dataclass(frozen=True)
class Limits:
    """Bounds of what clients may ask for.

    Attributes:
        body: Bytes of a request's body.
        held: Bytes of all bodies that are held at once; TorchServe, whose memory is bounded, holds them again. The last
            quarter is kept for small bodies.
        small: Bytes of such a body.
        body_seconds: Time within which a body must have come in.
        grace_seconds: Time that a body has before it must come at the rate.
        rate: Bytes of a body that must come in a second.
        requests: Requests at once that models have.
        connections: Connections at once, if as many files can be open.
    """

    body: int = 16_000_000
    held: int = 64_000_000
    small: int = 1_000_000
    body_seconds: float = 30.0
    grace_seconds: float = 5.0
    rate: float = 10_000.0
    requests: int = 512
    connections: int = 4096

    @staticmethod
    def of(body: int) -> Limits:
        """Those of a largest body, of which a few must find room at once."""
        return Limits(body, max(Limits.held, 4 * body))


class Refused(Exception):
    """A request that is refused, with the reply to it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Bodies:
    """Reads bodies, and counts what is held."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    def check_length(self, request: web.Request) -> None:
        """Refuses a body by its declared length, before any of it is read.

        Raises:
            Refused: it is too long.
        """
        if (request.content_length or 0) > self._limits.body:
            raise Refused(self._too_large())

    @contextmanager
    def room(self) -> Iterator[_Room]:
        """Room for one body, given back at the end."""
        room = _Room(self)
        try:
            yield room
        finally:
            self._held -= room.taken

    def _too_large(self) -> Reply:
        return failure(413, f"the request has more than {self._limits.body} bytes")


class _Room:
    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.taken = 0

    async def read(self, request: web.Request) -> bytes:
        """The whole body.

        Raises:
            Refused: it is too long or too slow, or too much is held already.
        """
        limits, is_plain = self._bodies._limits, encoding_of(request.headers) == "identity"
        if is_plain and request.content.is_eof():  # it came with its head, as a small one does: no clock is needed
            body = request.content.read_nowait()
            self.take(len(body))
            return body
        content = request.content if is_plain else Inflated(request.content)
        chunks: list[bytes] = []
        began = asyncio.get_running_loop().time()
        while True:
            due = min(limits.body_seconds, limits.grace_seconds + self.taken / limits.rate)
            try:
                async with asyncio.timeout_at(began + due):
                    chunk = await content.readany()
            except TimeoutError:
                raise Refused(failure(408, f"only {self.taken} bytes of the request came in {due:.1f} s")) from None
            if not chunk:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self.take(len(chunk))
            chunks.append(chunk)

    def take(self, count: int) -> None:
        """Takes so many bytes more.

        Raises:
            Refused: that is too long, or too much is held already.
        """
        limits = self._bodies._limits
        size = self.taken + count
        if size > limits.body:
            raise Refused(self._bodies._too_large())
        most = limits.held if size <= limits.small else limits.held * 3 // 4
        if self._bodies._held + count > most:
            raise Refused(failure(503, "too many large requests at once; try again", AGAIN, "memory"))
        self._bodies._held += count
        self.taken = size
