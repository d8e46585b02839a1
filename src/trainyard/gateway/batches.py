"""Gathers the requests of a model into batches: what comes while its workers are busy goes to the next one together.

A batch is one request to TorchServe, which would make batches of its own, but from a request each: that costs Java and
the gateway as much as a small model's answers do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from trainyard.http.batch import Reply, Sent

AHEAD = 1
"""Batches of a model that wait in TorchServe, so that a worker needn't wait for the next one."""
TICK = 1e-4
"""Seconds by which a clock may be early."""


@dataclass(frozen=True)
class Workers:
    """What answers a model's requests.

    Attributes:
        count: Of processes.
        batch_size: Most requests that one answers together.
        batch_bytes: Most bytes of these, if they are more than one.
        batch_delay: Seconds for which a request waits for others while workers have something to do.
        seconds: After which TorchServe ends one that doesn't answer.
    """

    count: int = 1
    batch_size: int = 1
    batch_bytes: int = 16_000_000
    batch_delay: float = 0.0
    seconds: float = 30.0


@dataclass(eq=False)
class _Waiting:
    request: Sent
    is_alone: bool
    due: float
    reply: asyncio.Future[Reply | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batches:
    """The requests of a model.

    Args:
        send: Has a worker answer requests together; of those that it ended with there is no reply.
        workers: The model's.
    """

    def __init__(self, send: Callable[[Sequence[Sent]], Awaitable[Sequence[Reply | None]]], workers: Workers) -> None:
        self._send, self._workers = send, workers
        self._waiting: deque[_Waiting] = deque()
        self._at_work: set[asyncio.Task[None]] = set()

    async def ask(self, request: Sent, is_alone: bool = False) -> Reply | None:
        """The reply to a request, which goes to a worker with others or alone; none if the worker ended with it."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, is_alone, loop.time() + self._workers.batch_delay)
        self._waiting.append(waiting)
        loop.call_soon(self._deal)  # after all that came in with it
        if self._workers.batch_delay:
            loop.call_at(waiting.due, self._deal)
        return await waiting.reply

    def _deal(self) -> None:
        """Gives the workers what waits, as far as they can take it; while they have something, full batches first."""
        while self._waiting and len(self._at_work) < self._workers.count + AHEAD:
            is_full = len(self._waiting) >= self._workers.batch_size
            is_due = self._waiting[0].due <= asyncio.get_running_loop().time() + TICK
            if self._at_work and not is_full and not is_due:
                break
            if batch := self._next():
                self._at_work.add(asyncio.create_task(self._answer(batch)))

    def _next(self) -> list[_Waiting]:
        """The oldest requests, as many as go together; those that nobody waits for any more are left out."""
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._workers.batch_size:
            first = self._waiting[0]
            size += len(first.request.body)
            if batch and (first.is_alone or batch[0].is_alone or size > self._workers.batch_bytes):
                break
            self._waiting.popleft()
            if not first.reply.done():
                batch.append(first)
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        try:
            replies = await self._send([one.request for one in batch])
            for one, reply in zip(batch, replies, strict=True):
                if not one.reply.done():
                    one.reply.set_result(reply)
        except Exception as error:  # our own mistake: nobody waits for ever because of it
            for one in batch:
                if not one.reply.done():
                    one.reply.set_exception(error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._at_work.discard(task)
            self._deal()
