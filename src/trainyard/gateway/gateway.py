"""The gateway: the only port that others reach. It checks tokens, types and lengths, answers probes, and drains.

It doesn't look into bodies: what a worker gets are the bytes that the client sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

import trainyard
from trainyard.gateway.access_log import ENTRY, LEFT, new_entry
from trainyard.gateway.batches import Workers
from trainyard.gateway.bodies import Bodies, Limits, Refused
from trainyard.gateway.checks import RAW, checked_type
from trainyard.gateway.connections import NO_HTTP, Connection, Connections
from trainyard.gateway.cors import allowing
from trainyard.gateway.door import Door
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.in_hand import InHand
from trainyard.gateway.load import Load
from trainyard.gateway.metrics import Metrics
from trainyard.gateway.proxy import AGAIN, Proxy, failure, respond
from trainyard.gateway.tokens import Tokens
from trainyard.http.batch import Reply, Sent

if TYPE_CHECKING:
    import socket

    Handler = Callable[[web.Request], Awaitable[Reply]]

log = logging.getLogger(__name__)

NAME = "{model:[A-Za-z0-9_-]+}"
VERSION = "{version:[A-Za-z0-9_.-]+}"
OPEN = ("/v2/health/live", "/v2/health/ready", "/ping")
"""Paths that need no token, and tell nothing but yes or no."""
CLOSE_SECONDS = 0.1
"""At the end, time for what is still being written."""
QUIET_SECONDS = 0.3
"""Of a drain: time in which no request came in any more on the connections that are still open."""
NO_TOKEN = failure(
    401,
    "give a token of this server: Authorization: Bearer TOKEN",
    {"WWW-Authenticate": 'Bearer realm="trainyard"'},
)


class Gateway:
    """The server that clients talk to.

    Args:
        models: Each model's description in the Open Inference Protocol, by its name.
        tokens: Those that clients show.
        proxy: TorchServe.
        health: What is told to probes.
        limits: Bounds of requests.
        metrics: Counts them.
        workers: Those of each model, by its name.
        origins: Of pages that may ask from a browser; see ``allowing``.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, object]],
        tokens: Tokens,
        proxy: Proxy,
        health: Health,
        limits: Limits,
        metrics: Metrics,
        workers: Mapping[str, Workers],
        origins: Collection[str] = (),
    ) -> None:
        self._metrics = metrics
        self._models, self._tokens, self._proxy, self.health = models, tokens, proxy, health
        self._bodies, self._load = Bodies(limits), Load(workers, limits.requests)
        self._connections = Connections(limits.connections)
        self._in_hand = InHand(health, self._load, metrics, proxy)
        self._door = Door(tokens, health, self._load, self._bodies, self._in_hand, metrics)
        self._origins = origins

    async def open(self, listener: socket.socket) -> None:
        """Takes requests from now on; until the phase is ``SERVING``, those of probes alone."""
        loop = asyncio.get_running_loop()
        self._runner = web.AppRunner(self._application(), shutdown_timeout=CLOSE_SECONDS)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "setup() makes it"
        connections, door = self._connections, self._door
        self._socket, self._connect = listener, lambda: Connection(server, loop, connections, door)
        self._listener = await loop.create_server(self._connect, sock=listener, backlog=connections.backlog)

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[allowing(self._origins)] if self._origins else [])
        routes: dict[str, Handler] = {
            **dict.fromkeys(OPEN, self._probe),
            f"/predictions/{NAME}": self._predict,
            f"/predictions/{NAME}/{VERSION}": self._predict,
            f"/v2/models/{NAME}/infer": self._infer,
            f"/v2/models/{NAME}/versions/{VERSION}/infer": self._infer,
            "/v2": self._describe_server,
            "/v2/models": self._list,
            f"/v2/models/{NAME}": self._describe,
            f"/v2/models/{NAME}/versions/{VERSION}": self._describe,
            f"/v2/models/{NAME}/ready": self._tell_ready,
            f"/v2/models/{NAME}/versions/{VERSION}/ready": self._tell_ready,
            "/{_:.*}": _no_such_path,
        }
        for path, handler in routes.items():
            # With every method: aiohttp's own 405 and 417 aren't JSON.
            app.router.add_route("*", path + "{end:/?}", partial(self._answer, handler), expect_handler=_go_on_later)
        return app

    async def leave(self, seconds: float) -> None:
        """Isn't ready any more, and takes requests for this time nevertheless."""
        self.health.phase = Phase.LEAVING
        await asyncio.sleep(seconds)

    async def drain(self, seconds: float) -> bool:
        """Takes no more connections, answers all requests that came in before, and says that connections close.

        Returns:
            Whether all was answered in time.
        """
        loop = asyncio.get_running_loop()
        self.health.phase = Phase.DRAINING
        # The system would reset what it has accepted and we haven't, and asyncio what it hasn't begun to serve.
        loop.remove_reader(self._socket)
        await asyncio.sleep(0)
        waiting: list[socket.socket] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(self._socket.accept()[0])
        self._listener.close()
        for accepted in waiting:
            await loop.connect_accepted_socket(self._connect, accepted)
        self._in_hand.heard_at = loop.time()
        end = loop.time() + seconds
        while self._in_hand.count or loop.time() - self._in_hand.heard_at < QUIET_SECONDS:
            if loop.time() > end:
                return False
            await asyncio.sleep(0.02)
        return True

    async def close(self) -> None:
        """Closes all connections."""
        self._listener.close()
        await self._runner.cleanup()
        self._proxy.close()

    async def _answer(self, handler: Handler, request: web.Request) -> web.Response:
        """Counts requests, answers those that are refused as all others, and logs what came of each."""
        entry = request[ENTRY] = new_entry(request)
        is_probe = handler == self._probe  # they need no token, and ask all the time
        with self._in_hand.one(entry, is_probe):
            try:
                entry.token = self._tokens.name_of(request.headers.get("Authorization"))
                reply = await _reply(handler, request) if entry.token or is_probe else NO_TOKEN
                entry.answered(reply)
            finally:
                if request.transport is None:
                    entry.left()
        response = respond(reply)
        response.headers["X-Request-Id"] = entry.id
        if self.health.phase is Phase.DRAINING:
            response.force_close()
        return response

    async def _probe(self, request: web.Request) -> Reply:
        _check_method(request, "GET", "HEAD")
        if request.path.startswith("/v2/health/live"):
            return _yes_or_no("live", True)
        if request.rel_url.query.get("deep") in ("1", "true"):
            return _yes_or_no("ready", await self.health.is_deeply_ready())
        return _yes_or_no("ready", self.health.is_ready())

    async def _describe_server(self, request: web.Request) -> Reply:
        _check_method(request, "GET", "HEAD")
        return _tell({"name": "trainyard", "version": trainyard.__version__, "extensions": ["binary_tensor_data"]})

    async def _list(self, request: web.Request) -> Reply:
        _check_method(request, "GET", "HEAD")
        return _tell({"models": sorted(self._models)})

    async def _describe(self, request: web.Request) -> Reply:
        _check_method(request, "GET", "HEAD")
        return _tell(self._models[self._checked_model(request)])

    async def _tell_ready(self, request: web.Request) -> Reply:
        _check_method(request, "GET", "HEAD")
        return _yes_or_no("ready", self.health.is_ready(self._checked_model(request)))

    async def _predict(self, request: web.Request) -> Reply:
        return await self._ask(request, is_v2=False)

    async def _infer(self, request: web.Request) -> Reply:
        return await self._ask(request, is_v2=True)

    async def _ask(self, request: web.Request, is_v2: bool) -> Reply:
        _check_method(request, "POST")
        if self.health.is_loading:
            raise Refused(failure(503, "the models are being loaded; try again", AGAIN, "starting"))
        model = self._checked_model(request)
        content_type = checked_type(request.headers, is_v2)
        if RAW.match(content_type):
            request[ENTRY].items = 1
        if query := request.rel_url.raw_query_string:
            raise Refused(failure(400, f"no query is taken ({query[:100]!r}): options are keys of a request in JSON"))
        self._bodies.check_length(request)
        self._load.check(model)
        since = asyncio.get_running_loop().time()
        with self._bodies.room() as room:
            _go_on(request)
            try:
                body = await room.read(request)
            finally:
                request[ENTRY].bytes = room.taken
            self._load.check(model)  # again: many bodies may have come in meanwhile
            connection = request.protocol
            assert isinstance(connection, Connection)
            with self._connections.answering(connection):
                return await self._in_hand.predict(request[ENTRY], model, Sent(content_type, body), since)

    def _checked_model(self, request: web.Request) -> str:
        model = request.match_info["model"]
        if model not in self._models:
            raise Refused(failure(404, f"there is no model {model}; there are {', '.join(sorted(self._models))}"))
        version, versions = request.match_info.get("version"), self._models[model]["versions"]
        assert isinstance(versions, list)
        if version not in (None, *versions):
            raise Refused(failure(404, f"there is no version {version} of {model}; there is {', '.join(versions)}"))
        entry = request[ENTRY]
        entry.model, entry.version = model, version or self._metrics.version(model)
        return model


async def _reply(handler: Handler, request: web.Request) -> Reply:
    """A handler's, or what is said of a request that it refuses."""
    try:
        return await handler(request)
    except Refused as refused:
        return refused.reply
    except web.RequestPayloadError:
        return NO_HTTP
    except web.HTTPException as error:
        return failure(error.status, error.reason)
    except ConnectionError:  # the client left while it sent the body: nobody reads this
        return Reply(LEFT, b"")


def _check_method(request: web.Request, *allowed: str) -> None:
    if request.method not in allowed:
        raise Refused(failure(405, f"{request.method} isn't allowed here", {"Allow": ", ".join(allowed)}))


def _go_on(request: web.Request) -> None:
    """Tells a client that waits for it to send the body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _go_on_later(_: web.Request) -> None:
    """Says nothing yet to a client that waits: what can be refused by its head is, before the body is sent."""


async def _no_such_path(_: web.Request) -> Reply:
    raise Refused(failure(404, "there is no such path; predictions are at /predictions/MODEL"))


def _tell(content: Mapping[str, object]) -> Reply:
    return Reply(200, json.dumps(content).encode())


def _yes_or_no(name: str, value: bool) -> Reply:
    return Reply(200 if value else 503, json.dumps({name: value}).encode())
