"""Reading the bodies of requests within bounds: of size, of time, and of all that is held at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainyard.gateway.proxy import AGAIN, Answer, failure

if TYPE_CHECKING:
    from aiohttp import web


@dataclass(frozen=True)
class Limits:
    """Bounds of what clients may ask for.

    Attributes:
        body: Bytes of a request's body.
        held: Bytes of all bodies that are held at once; TorchServe, whose memory is bounded, holds them again.
        body_seconds: Time within which a body must have come in.
        requests: Requests at once.
    """

    body: int = 16_000_000
    held: int = 64_000_000
    body_seconds: float = 30.0
    requests: int = 512

    @staticmethod
    def of(body: int) -> Limits:
        """Those of a largest body, of which a few must find room at once."""
        return Limits(body, max(Limits.held, 4 * body))


class Refused(Exception):
    """A request that is refused, with the answer to it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Bodies:
    """Reads bodies, and counts what is held."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    def check_length(self, request: web.BaseRequest) -> None:
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

    def _too_large(self) -> Answer:
        return failure(413, f"the request has more than {self._limits.body} bytes")


class _Room:
    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.taken = 0

    async def read(self, request: web.BaseRequest) -> bytes:
        """The whole body.

        Raises:
            Refused: it is too long or too slow, or too much is held already.
        """
        limits = self._bodies._limits
        self._take(request.content_length or 0)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size > limits.body:
                        raise Refused(self._bodies._too_large())
                    self._take(size - self.taken)
                    chunks.append(chunk)
        except TimeoutError:
            answer = failure(408, f"the request didn't come in within {limits.body_seconds:g} s")
            raise Refused(answer) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _take(self, count: int) -> None:
        if count <= 0:
            return
        if self._bodies._held + count > self._bodies._limits.held:
            raise Refused(failure(503, "too many large requests at once; try again", AGAIN))
        self._bodies._held += count
        self.taken += count
