"""Whether the server is live and ready: what it knows of its models' workers, and of its own phase."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum

DEEP_KEPT = 5.0
"""Seconds for which the outcome of a deep check is told to whoever asks: asking often costs nothing."""


class Phase(Enum):
    """Where the server is in its life.

    It is recovering while TorchServe is started again, and leaving while it takes requests but tells probes no, so that
    whoever sends it requests stops before it drains.
    """

    STARTING = "starting"
    SERVING = "serving"
    RECOVERING = "recovering"
    LEAVING = "leaving"
    DRAINING = "draining"


class Health:
    """What the gateway answers to probes.

    Attributes:
        phase: Where the server is in its life.
        missing: Models that no worker is ready for.
        restarts: How many workers of each model ended, and were started again.
    """

    def __init__(self, models: frozenset[str]) -> None:
        self.phase = Phase.STARTING
        self.missing = models
        self.restarts: Counter[str] = Counter()
        self._models = models
        self._deep: Callable[[], Awaitable[str | None]] | None = None
        self._checking: asyncio.Task[str | None] | None = None
        self._checked_at = 0.0

    @property
    def is_loading(self) -> bool:
        """Whether TorchServe has been started and isn't checked yet, so that only the server itself asks it."""
        return self.phase in (Phase.STARTING, Phase.RECOVERING)

    def is_ready(self, model: str | None = None) -> bool:
        """Whether all models, or this one, can be asked."""
        missing = self.missing if model is None else self.missing & {model}
        return self.phase is Phase.SERVING and not missing

    def check_deeply_by(self, check: Callable[[], Awaitable[str | None]]) -> None:
        """Sets what has each model answer a request, and returns what is wrong, if anything."""
        self._deep, self._checking = check, None

    async def is_deeply_ready(self) -> bool:
        """Whether all models can be asked and have just answered right. Callers share one check."""
        if not self.is_ready() or self._deep is None:
            return False
        old = time.monotonic() - self._checked_at > DEEP_KEPT
        if self._checking is None or (self._checking.done() and old):
            self._checking = asyncio.ensure_future(self._deep())
            self._checked_at = time.monotonic()
        return await asyncio.shield(self._checking) is None and self.is_ready()
