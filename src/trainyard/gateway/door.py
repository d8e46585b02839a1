"""Refuses requests of a model that has too much to do at the door, before anything of aiohttp's or ours looks at them.

At twice what a server can do, half of its requests are refused. Through the application that takes the gateway three
quarters of an answer's time (340 us), which those that were let in then wait for. Here it takes 65 us.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter

from trainyard.gateway.access_log import Entry, request_id
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.load import Load
from trainyard.gateway.metrics import Metrics
from trainyard.gateway.proxy import headers_of
from trainyard.gateway.tokens import Tokens

log = logging.getLogger(__name__)

WHOLE = re.compile(
    rb"POST (?P<path>/(?:predictions/(?P<v1>[A-Za-z0-9_-]+)|v2/models/(?P<v2>[A-Za-z0-9_-]+)/infer)) HTTP/1\.1\r\n"
    rb"(?P<headers>(?:[A-Za-z0-9_-]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
"""The head of a request to a model, as nearly all clients write it."""
HEADER = re.compile(r"([^:]+):[\t ]*([^\r]*?)[\t ]*\r\n")
OTHERS = {"transfer-encoding", "expect", "origin", "upgrade"}
"""Headers that change where the request ends or what its answer has: aiohttp's affair, and the application's."""
KEPT = "keep-alive"
TELL_SECONDS = 1.0


class Door:
    """What comes before the application. It refuses what that would, in the same words.

    Args:
        load: Knows which models have too much to do.
        tokens: Those that clients show; who shows none is answered by the application.
        metrics: Counts the refused as others.
        health: While models are loaded, and in a drain, the application answers.
    """

    def __init__(self, load: Load, tokens: Tokens, metrics: Metrics, health: Health) -> None:
        self._load, self._tokens, self._metrics, self._health = load, tokens, metrics, health
        self._refused: Counter[str] = Counter()
        self._coming: dict[object, str] = {}  # the models of those that were let in and haven't come to the application
        self._count: Counter[str] = Counter()

    def refusal(self, connection: object, data: bytes) -> bytes | None:
        """The answer to what came in, if that is one request, all of it, of a model that has too much to do."""
        found = WHOLE.match(data)
        if not found or self._health.is_loading or self._health.phase is Phase.DRAINING:
            return None
        model = (found["v1"] or found["v2"]).decode()
        refusal = self._load.refusal(model, self._count[model])
        if refusal is None:
            self._coming[connection] = model
            self._count[model] += 1
            return None
        given = HEADER.findall(found["headers"].decode())
        headers = {name.lower(): value for name, value in given}
        is_whole = headers.get("content-length", "") == str(len(data) - found.end())
        is_kept = headers.get("connection", KEPT).lower() == KEPT
        if not is_whole or not is_kept or len(headers) < len(given) or not OTHERS.isdisjoint(headers):
            return None
        token = self._tokens.name_of(headers.get("authorization"))
        if token is None:
            return None
        entry = Entry(
            request_id(headers.get("x-request-id", ""), headers.get("traceparent", "")),
            found["path"].decode(),
            model,
            self._metrics.version(model),
            token,
            status=refusal.status,
            code=refusal.code,
        )
        self._metrics.count(entry, None)
        if not self._refused:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
        self._refused[model] += 1
        told = {**headers_of(refusal), "X-Request-Id": entry.id, "Content-Length": str(len(refusal.body))}
        lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in told.items()), "\r\n"]
        return "\r\n".join(lines).encode() + refusal.body

    def passed(self, connection: object) -> None:
        """What it let in of this connection, if it did, has come to the application, or never will."""
        if model := self._coming.pop(connection, None):
            self._count[model] -= 1

    def _tell(self) -> None:
        for model, count in self._refused.items():
            log.warning("%d requests of %s were refused within a second: too many at once", count, model)
        self._refused.clear()
