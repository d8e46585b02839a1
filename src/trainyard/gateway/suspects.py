"""Finds out which request of a batch ended its worker: each is tried again alone, and the one to blame is refused."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

TRIES = 2
"""Workers that a request must end alone: one may have been ended by somebody else, as by a system short of memory."""
MOST_WAITING = 64
"""Requests of a model that are to be tried alone at once: more are given up."""
REFUSED_SECONDS = 300.0
MOST_REFUSED = 1000
"""Bodies that are remembered."""


class GuiltyError(Exception):
    """A request that ends workers; it is refused for ``REFUSED_SECONDS`` from then on."""


class Suspects:
    """Sends requests, and again alone those whose worker ended while it had them.

    TorchServe makes the batches, so that a request is alone while the gateway holds back all others of its model: for
    the time of an answer, or until another worker is there. A body to blame is remembered by its hash, in memory.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        self._refused: dict[tuple[str, bytes], float] = {}

    async def ask(self, model: str, body: bytes, send: Callable[[], Awaitable[T | None]]) -> T | None:
        """What ``send`` gave; it gives none if the worker ended.

        Returns:
            The answer; none, if too many are to be tried alone.

        Raises:
            GuiltyError: this body ends workers.
        """
        if self._refused and self._is_refused(model, body):
            raise GuiltyError
        line = self._lines[model]
        answer = await line.together(send)
        if answer is not None or line.waiting >= MOST_WAITING:
            return answer
        for _ in range(TRIES):  # at the end of the line each time: its innocent neighbours needn't wait for both
            answer = await line.alone(send)
            if answer is not None:
                return answer
        self._refuse(model, body)
        raise GuiltyError

    def _is_refused(self, model: str, body: bytes) -> bool:
        return time.monotonic() < self._refused.get((model, hashlib.sha256(body).digest()), 0.0)

    def _refuse(self, model: str, body: bytes) -> None:
        digest = hashlib.sha256(body)
        log.warning("a request of %s ended %d workers while it was alone: it is refused for %g s (SHA-256 %s)",
                    model, TRIES, REFUSED_SECONDS, digest.hexdigest())  # fmt: skip
        self._refused[model, digest.digest()] = time.monotonic() + REFUSED_SECONDS
        if len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]


class _Line:
    """The requests of a model: many together, or one alone while the others wait.

    Attributes:
        waiting: Those that are alone or want to be.
    """

    def __init__(self) -> None:
        self.waiting = self._inside = 0
        self._lock = asyncio.Lock()
        self._empty, self._open = asyncio.Event(), asyncio.Event()

    async def together(self, send: Callable[[], Awaitable[T]]) -> T:
        while self.waiting:
            await self._open.wait()
        self._inside += 1
        try:
            return await send()
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    async def alone(self, send: Callable[[], Awaitable[T]]) -> T:
        self.waiting += 1
        self._open.clear()
        try:
            async with self._lock:
                while self._inside:
                    self._empty.clear()
                    await self._empty.wait()
                return await send()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self._open.set()
