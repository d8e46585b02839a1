"""The connections of clients: at most so many that the system has room for them all, and for those to TorchServe."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from trainyard.gateway.door import Door
from trainyard.gateway.proxy import FAILED, failure, respond

log = logging.getLogger(__name__)

NO_HTTP = failure(400, "that isn't a request of HTTP")
IDLE_SECONDS = 75.0
"""Time for which a connection may be silent, or take for the head of a request."""
LINGER_SECONDS = 1.0
"""Time in which the rest of a refused body is read, so that the client sees the answer."""
LATER_BYTES = 65_536
"""Of requests that a client sends before it has the answer to the first."""
OTHER_FILES = 64
"""Open files beside connections."""
NOT_LOGGED = logging.Logger("aiohttp.access", logging.CRITICAL)
"""For aiohttp, which logs no request to it."""


class Connections:
    """All that are open. One more than fit ends the one that has been silent for longest and waits for no answer.

    Args:
        most: Of them at once; fewer where the limit of open files is lower.
    """

    def __init__(self, most: int) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # A request needs two: from its client and to TorchServe.
        self.most = most if files == resource.RLIM_INFINITY else max(2, min(most, (files - OTHER_FILES) // 2))
        self._silent: dict[Connection, float] = {}  # since when those that wait for no answer are, the longest first
        self._open = self._ended = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")

    @property
    def backlog(self) -> int:
        """Of the listener: so many are accepted in one go, before the first of them can be ended."""
        return max(1, self.most // 4)

    @contextmanager
    def answering(self, connection: Connection) -> Iterator[None]:
        """While a model has its request, the connection isn't ended."""
        self._silent.pop(connection, None)
        try:
            yield
        finally:
            if connection.transport is not None:
                self._silent[connection] = asyncio.get_running_loop().time()

    def add(self, connection: Connection) -> None:
        """One more; the longest silent ends for it, or it does by itself."""
        loop = asyncio.get_running_loop()
        self._sweep = self._sweep or loop.call_later(IDLE_SECONDS / 10, self._end_silent)
        self._open += 1
        self._silent[connection] = loop.time()
        if self._open > self.most:
            self.tell()
            ended = next(iter(self._silent))
            del self._silent[ended]
            ended.force_close()

    def hear(self, connection: Connection) -> None:
        """It has just said something."""
        if connection in self._silent:
            del self._silent[connection]
            self._silent[connection] = asyncio.get_running_loop().time()

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._open -= 1
        self._silent.pop(connection, None)

    def _end_silent(self) -> None:
        """Ends those that have said nothing for too long, as aiohttp does of those whose requests it has answered."""
        loop = asyncio.get_running_loop()
        for connection, since in list(self._silent.items()):
            if loop.time() - since < IDLE_SECONDS:
                break
            connection.force_close()
        self._sweep = loop.call_later(IDLE_SECONDS / 10, self._end_silent) if self._open else None

    def tell(self) -> None:
        """Counts an ended one; a line of the log a second tells of them."""
        self._ended += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= 1:
            log.warning("%d connections fit at once: ended %d that were silent", self.most, self._ended)
            self._told_at, self._ended = now, 0


class Connection(web.RequestHandler):
    """A client's connection; what it says of requests that aren't HTTP is JSON, as all that we answer.

    They reach no middleware and no signal of the application: aiohttp answers them here.
    """

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, connections: Connections, door: Door
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=NOT_LOGGED,
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
        )
        self._connections, self._door = connections, door
        self._is_whole = True
        self._at_door: asyncio.Task[None] | None = None
        self._later = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts it."""
        super().connection_made(transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Has it answered at the door, or by aiohttp; what comes while the door has a request waits for its answer.

        The door must see where a request begins: aiohttp, whose ``_waiter`` waits for the next one, has had no part of
        it. What is no request for aiohttp is such a part; from then on the door isn't asked.
        """
        self._connections.hear(self)
        transport, waiter = self.transport, self._waiter
        if transport is None:  # aiohttp itself calls this without any data, at its end too
            return super().data_received(data)
        if self._at_door:
            self._later += data
            if len(self._later) > LATER_BYTES:
                transport.pause_reading()
            return
        is_waiting = waiter is not None and not waiter.done()
        if is_waiting and self._is_whole and (answer := self._door.answer(self, data)):
            self.keep_alive(True)  # from now on no timer of aiohttp's ends it
            if isinstance(answer, bytes):
                transport.write(answer)
            else:
                self._at_door = self._loop.create_task(self._serve(answer))
            return
        super().data_received(data)
        if data and (not is_waiting or (waiter and not waiter.done())):
            self._is_whole = False
        return None

    async def _serve(self, asked: Coroutine[Any, Any, bytes]) -> None:
        """Writes the door's answer, and goes on with what came meanwhile."""
        try:
            with self._connections.answering(self):
                answer = await asked
        except Exception as error:  # our own mistake, in what comes behind the answer
            self.log_exception("Error handling a request", exc_info=error)
            self.force_close()
            return
        assert self.transport is not None, "its end cancels this"
        self.transport.write(answer)
        if self._door.is_closing:
            self.force_close()
            return
        self._at_door, data, self._later = None, self._later, b""
        if data:
            self.transport.resume_reading()
            self.data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counts it no more."""
        super().connection_lost(exc)
        self._connections.remove(self)
        self._door.begun(self)
        if self._at_door:
            self._at_door.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered to a request that can't be read, and to one that we fail on."""
        if status >= 500:
            self.log_exception("Error handling a request", exc_info=exc)
        else:
            log.info("a client sent what isn't a request of HTTP")
        response = respond(NO_HTTP if status < 500 else FAILED)
        response.force_close()
        return response
