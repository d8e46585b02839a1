"""Finds out which request of a batch ended its worker: each is tried again alone, and the one to blame is refused."""

from __future__ import annotations

import hashlib
import logging
import time

from trainyard.gateway.batches import Batches
from trainyard.http.batch import Reply, Sent

log = logging.getLogger(__name__)

TRIES = 2
"""Workers that a request must end alone: one may have been ended by somebody else, as by a system short of memory."""
MOST_TRIED = 64
"""Requests of a model that are tried alone at once: more are given up."""
REFUSED_SECONDS = 300.0
MOST_REFUSED = 1000
"""Bodies that are remembered."""


class GuiltyError(Exception):
    """A request that ends workers; it is refused for ``REFUSED_SECONDS`` from then on."""


class Suspects:
    """The requests of a model whose worker ended while it had them. A body to blame is remembered by its hash.

    Args:
        model: Its name.
        batches: Its requests.
    """

    def __init__(self, model: str, batches: Batches) -> None:
        self._model, self._batches = model, batches
        self._tried = 0
        self._refused: dict[bytes, float] = {}

    async def ask(self, request: Sent) -> Reply | None:
        """The reply to a request: from a worker with others, or if that ended, alone.

        Returns:
            The reply; none, if too many are tried alone.

        Raises:
            GuiltyError: this body ends workers.
        """
        if self._refused and time.monotonic() < self._refused.get(_digest(request), 0.0):
            raise GuiltyError
        reply = await self._batches.ask(request)
        if reply is not None or self._tried >= MOST_TRIED:
            return reply
        self._tried += 1
        try:
            for _ in range(TRIES):  # at the end of the line each time: its innocent neighbours needn't wait for both
                reply = await self._batches.ask(request, is_alone=True)
                if reply is not None:
                    return reply
        finally:
            self._tried -= 1
        self._refuse(request)
        raise GuiltyError

    def _refuse(self, request: Sent) -> None:
        digest = _digest(request)
        log.warning("a request of %s ended %d workers while it was alone: it is refused for %g s (SHA-256 %s)",
                    self._model, TRIES, REFUSED_SECONDS, digest.hex())  # fmt: skip
        self._refused[digest] = time.monotonic() + REFUSED_SECONDS
        if len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]


def _digest(request: Sent) -> bytes:
    return hashlib.sha256(request.body).digest()
