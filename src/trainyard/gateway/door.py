"""Answers plain requests to models at the door: those that come in one piece, with nothing that wants a closer look.

Through aiohttp's application the gateway takes 450 us for a request, more than a small model does; and 340 us to
refuse one, so that at twice the load there is no time for those that were let in. Here it takes 300, and 65 to refuse.
What the door doesn't understand to the last byte it leaves to the application, with all that is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Coroutine, Mapping
from http.client import responses
from typing import Any

from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

from trainyard.gateway.access_log import Entry, request_id
from trainyard.gateway.bodies import Bodies, Refused
from trainyard.gateway.checks import RAW, checked_type
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.in_hand import InHand
from trainyard.gateway.load import Load
from trainyard.gateway.metrics import Metrics
from trainyard.gateway.proxy import FAILED, headers_of
from trainyard.gateway.tokens import Tokens
from trainyard.http.batch import Reply, Sent

log = logging.getLogger(__name__)

WHOLE = re.compile(
    rb"POST (?P<path>/(?:predictions/(?P<v1>[A-Za-z0-9_-]+)|v2/models/(?P<v2>[A-Za-z0-9_-]+)/infer)) HTTP/1\.1\r\n"
    rb"(?P<headers>(?:[A-Za-z0-9_-]+:[\t\x20-\x7e]*\r\n)+)\r\n"
)
"""The head of a request to a model, as nearly all clients write it."""
HEADER = re.compile(r"([^:]+):[\t ]*([^\r]*?)[\t ]*\r\n")
OTHERS = ("Transfer-Encoding", "Content-Encoding", "Expect", "Origin", "Upgrade")
"""Headers that change what the body is or what the answer has: aiohttp's affair, and the application's."""
KEPT = "keep-alive"
LONGEST_HEAD = 8190
"""Bytes, as aiohttp has it of each of its lines."""
TELL_SECONDS = 1.0


class Door:
    """What comes before the application.

    Args:
        tokens: Those that clients show; who shows none is answered by the application.
        health: While models are loaded, and in a drain, the application answers.
        load: Knows which models have too much to do.
        bodies: Count those that are held.
        in_hand: Has the models answer.
        metrics: Count the refused as others.
    """

    def __init__(
        self, tokens: Tokens, health: Health, load: Load, bodies: Bodies, in_hand: InHand, metrics: Metrics
    ) -> None:
        self._tokens, self._health, self._load, self._bodies = tokens, health, load, bodies
        self._in_hand, self._metrics = in_hand, metrics
        self._refused: Counter[str] = Counter()
        self._coming: dict[object, str] = {}  # the models of those that were let in and haven't begun
        self._count: Counter[str] = Counter()

    def answer(self, connection: object, data: bytes) -> bytes | Coroutine[Any, Any, bytes] | None:
        """What came in, if it is one request that the door understands: its refusal, or what will be its answer."""
        found = WHOLE.match(data, 0, LONGEST_HEAD)
        if not found or self._health.phase not in (Phase.SERVING, Phase.LEAVING):
            return None
        model = (found["v1"] or found["v2"]).decode()
        version = self._metrics.version(model)
        given = HEADER.findall(found["headers"].decode())
        headers = CIMultiDict(given)
        token = self._tokens.name_of(headers.get("Authorization"))
        request = _read(data[found.end() :], headers, is_v2=bool(found["v2"]))
        if version is None or token is None or request is None or len(set(map(str.lower, headers))) < len(given):
            return None
        entry = Entry(request_id(headers), found["path"].decode(), model, version, token, len(request.body))
        if RAW.match(request.content_type):
            entry.items = 1
        if refusal := self._load.refusal(model, self._count[model]):
            return self._refuse(entry, refusal)
        self._coming[connection] = model
        self._count[model] += 1
        return self._ask(connection, entry, request)

    @property
    def is_closing(self) -> bool:
        """Whether connections end after the answer that they wait for."""
        return self._health.phase is Phase.DRAINING

    def begun(self, connection: object) -> None:
        """What was let in of this connection has begun, or never will."""
        if model := self._coming.pop(connection, None):
            self._count[model] -= 1

    async def _ask(self, connection: object, entry: Entry, request: Sent) -> bytes:
        self.begun(connection)
        assert entry.model
        with self._in_hand.one(entry), self._bodies.room() as room:
            try:
                room.take(len(request.body))
                reply = await self._in_hand.predict(entry, entry.model, request, asyncio.get_running_loop().time())
            except Refused as refused:
                reply = refused.reply
            except asyncio.CancelledError:
                entry.left()
                raise
            except Exception:  # our own mistake, answered as aiohttp has it of the application's
                log.exception("Error handling a request")
                reply = FAILED
            entry.answered(reply)
        return self._write(entry, reply)

    def _refuse(self, entry: Entry, refusal: Reply) -> bytes:
        entry.status, entry.code = refusal.status, refusal.code
        self._metrics.count(entry)
        if not self._refused:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
        self._refused[entry.model or ""] += 1
        return self._write(entry, refusal)

    def _write(self, entry: Entry, reply: Reply) -> bytes:
        headers = {
            **headers_of(reply),
            "X-Request-Id": entry.id,
            "Content-Length": str(len(reply.body)),
            "Date": rfc822_formatted_time(),
            **({"Connection": "close"} if self.is_closing else {}),
        }
        first = f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}"
        return "\r\n".join([first, *map(": ".join, headers.items()), "\r\n"]).encode() + reply.body

    def _tell(self) -> None:
        for model, count in self._refused.items():
            log.warning("%d requests of %s were refused within a second: too many at once", count, model)
        self._refused.clear()


def _read(body: bytes, headers: Mapping[str, str], is_v2: bool) -> Sent | None:
    """The request to a model, if nothing is wrong with it and this is all of it."""
    is_kept = headers.get("Connection", KEPT).lower() == KEPT
    if headers.get("Content-Length") != str(len(body)) or not is_kept or any(name in headers for name in OTHERS):
        return None
    try:
        return Sent(checked_type(headers, is_v2), body)
    except Refused:
        return None
