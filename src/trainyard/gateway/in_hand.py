"""The requests in hand, however they came in: each is counted, timed, logged, and a model's is passed on to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from trainyard.gateway.access_log import Entry
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.load import Load
from trainyard.gateway.metrics import Metrics
from trainyard.gateway.proxy import Proxy
from trainyard.http.batch import Reply, Sent


class InHand:
    """All of them.

    Attributes:
        count: Of those that aren't answered yet.
        heard_at: When the last one came in, by the loop's clock.
    """

    def __init__(self, health: Health, load: Load, metrics: Metrics, proxy: Proxy) -> None:
        self._health, self._load, self._metrics, self._proxy = health, load, metrics, proxy
        self.count = 0
        self.heard_at = 0.0

    @contextlib.contextmanager
    def one(self, entry: Entry, is_probe: bool = False) -> Iterator[None]:
        """While it lasts, one more is in hand; at the end it is counted and logged, as its entry says."""
        loop = asyncio.get_running_loop()
        self.count += 1
        self.heard_at = began = loop.time()
        try:
            yield
        finally:
            self.count -= 1
            entry.ms = round((loop.time() - began) * 1000, 1)
            is_quiet = is_probe or self._health.phase is Phase.STARTING
            entry.tell(is_quiet)
            if not is_quiet:
                self._metrics.count(entry)

    async def predict(self, entry: Entry, model: str, request: Sent, since: float) -> Reply:
        """Has a model answer; for the arguments see ``Proxy.predict``."""
        loop = asyncio.get_running_loop()
        with self._metrics.answering(model):
            began = loop.time()
            reply = await self._load.counted(model, self._proxy.predict(model, request, since))
        if reply.facts:
            entry.worked(reply.facts, loop.time() - began)
        return reply
