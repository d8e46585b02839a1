"""The connections of clients: at most so many that the system has room for them all, and for those to TorchServe."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from trainyard.gateway.door import Door
from trainyard.gateway.proxy import failure, respond

log = logging.getLogger(__name__)

NO_HTTP = failure(400, "that isn't a request of HTTP")
IDLE_SECONDS = 75.0
"""Time for which a connection may be silent, or take for the head of a request."""
LINGER_SECONDS = 1.0
"""Time in which the rest of a refused body is read, so that the client sees the answer."""
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
        self._silent: dict[Connection, None] = {}  # those that wait for no answer, the longest silent first
        self._open = self._ended = 0
        self._told_at = float("-inf")

    @property
    def backlog(self) -> int:
        """Of the listener: so many are accepted in one go, before the first of them can be ended."""
        return max(1, self.most // 4)

    @contextmanager
    def answering(self, request: web.Request) -> Iterator[None]:
        """While a model has the request, its connection isn't ended."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        self._silent.pop(connection, None)
        try:
            yield
        finally:
            if request.transport is not None:
                self._silent[connection] = None

    def add(self, connection: Connection) -> None:
        """One more; the longest silent ends for it, or it does by itself."""
        self._open += 1
        self._silent[connection] = None
        if self._open > self.most:
            self.tell()
            ended = next(iter(self._silent))
            del self._silent[ended]
            ended.force_close()

    def hear(self, connection: Connection) -> None:
        """It has just said something."""
        if connection in self._silent:
            del self._silent[connection]
            self._silent[connection] = None

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._open -= 1
        self._silent.pop(connection, None)

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts it."""
        super().connection_made(transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Has it answered at the door, or by aiohttp.

        The door must see where a request begins: aiohttp, whose ``_waiter`` waits for the next one, has had no part of
        it. What is no request for aiohttp is such a part; from then on the door isn't asked.
        """
        self._connections.hear(self)
        waiter = self._waiter
        is_waiting = waiter is not None and not waiter.done()
        if is_waiting and self._is_whole and self.transport and (refusal := self._door.refusal(self, data)):
            self.keep_alive(True)
            self.transport.write(refusal)
            return
        super().data_received(data)
        if data and (not is_waiting or (waiter and not waiter.done())):  # aiohttp calls it without any, too
            self._is_whole = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counts it no more."""
        super().connection_lost(exc)
        self._connections.remove(self)
        self._door.passed(self)

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
        answer = NO_HTTP if status < 500 else failure(status, "the server failed on this request")
        response = respond(answer)
        response.force_close()
        return response
