"""TorchServe as the server sees it: started, watched while it loads and while it serves, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any

from trainyard.base.errors import TrainyardError
from trainyard.gateway.health import Health
from trainyard.torchserve.java import Java
from trainyard.torchserve.management import Management
from trainyard.torchserve.process import Plan, TorchServe
from trainyard.torchserve.run_directory import RunDirectory

log = logging.getLogger(__name__)

STARTS = 3
"""Times that other ports are tried when another program took one in the moment before."""
PORT_TAKEN = "Address already in use"
LOADING_POLL = 0.05
POLL = 1.0
"""Seconds between two looks at the workers while they load, and while they serve."""
LAST_WORDS = 0.5
"""Seconds to wait for the rest of what a worker says when it ends."""
LOST_SECONDS = 180.0
"""A model that no worker was ready for in so long won't come back: better that the whole is started again."""


class BackendError(TrainyardError):
    """TorchServe, or a worker of it, doesn't do what it should."""


class Backend:
    """Java and the workers.

    Args:
        java: What TorchServe runs on.
        directory: The private folder.
        plan: What it serves.
    """

    def __init__(self, java: Java, directory: RunDirectory, plan: Plan) -> None:
        self._java, self._home, self._plan = java, directory, plan
        self._debug = bool(os.environ.get("TRAINYARD_DEBUG"))
        self._server: TorchServe | None = None
        self._died = asyncio.Event()
        self._ended_workers: asyncio.Queue[str] = asyncio.Queue()

    @property
    def server(self) -> TorchServe:
        """The TorchServe that runs."""
        assert self._server is not None, "start() comes first"
        return self._server

    @property
    def key_file(self) -> Path:
        """TorchServe's own key file."""
        return self._home.key_file

    def inference_url(self) -> str:
        """Where TorchServe takes requests."""
        return self.server.url("inference")

    async def start(self) -> None:
        """Starts TorchServe; it has bound its ports, or has ended, some seconds later.

        Which ports it took is known at once.
        """
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.call_soon_threadsafe(self._died.set)

        def worker_ended(model: str) -> None:
            loop.call_soon_threadsafe(self._ended_workers.put_nowait, model)

        self._died.clear()
        self._server = TorchServe(
            self._java,
            self._home,
            self._plan,
            ended,
            worker_ended,
            self._debug,
        )
        self._management = Management(self._server.url("management"), self._home.key_file)
        await self._management.open()

    async def until_loaded(self) -> None:
        """Waits until each model's workers have loaded it.

        Raises:
            BackendError: a worker ended before, or TorchServe did; with the reason that it gave.
        """
        for _ in range(STARTS):
            if await self._loaded(self._plan.archives):
                return
            await self.stop()
            await self.start()
        raise BackendError("TorchServe found no free ports: see what listens on this machine, and start it again")

    async def watch(self, health: Health) -> None:
        """Keeps ``health`` informed, as long as all is well.

        Raises:
            BackendError: TorchServe ended, or a model has been without a worker for ``LOST_SECONDS``.
        """
        seen = dict.fromkeys(self._plan.archives, time.monotonic())
        while True:
            await self._check_alive()
            while not self._ended_workers.empty():
                model = self._ended_workers.get_nowait()
                health.restarts[model] += 1
                await self._tell_of(model)
            for model in seen:
                workers = await self._management.workers(model)
                if workers and workers.ready:
                    seen[model] = time.monotonic()
                    health.missing -= {model}
                else:
                    health.missing |= {model}
                    self._check_lost(model, time.monotonic() - seen[model])
            await _first(self._died.wait(), POLL)

    async def stop(self) -> None:
        """Ends all, and waits for it."""
        if self._server is not None:
            await self._management.close()
            await asyncio.to_thread(self._server.stop)

    async def _loaded(self, models: Collection[str]) -> bool:
        """Waits until all are loaded; false if another program had taken a port."""
        waiting = set(models)
        while waiting:
            if self._died.is_set() and self.server.log.says(PORT_TAKEN):
                return False
            await self._check_alive()
            if not self._ended_workers.empty():
                model = self._ended_workers.get_nowait()
                await asyncio.sleep(LAST_WORDS)
                raise BackendError(f"a worker can't load the model {model}: {self.server.log.worker_reason(model)}")
            for model in sorted(waiting):
                workers = await self._management.workers(model)
                if workers and workers.wanted and len(workers.ready) >= workers.wanted:
                    waiting.remove(model)
            await _first(self._died.wait(), LOADING_POLL)
        return True

    async def _check_alive(self) -> None:
        if self._died.is_set():
            raise BackendError(f"TorchServe ended of its own accord: {self.server.log.server_reason()}")

    async def _tell_of(self, model: str) -> None:
        log.warning("a worker of %s ended (%s); TorchServe starts another", model, self.server.log.worker_reason(model))

    def _check_lost(self, model: str, seconds: float) -> None:
        if seconds > LOST_SECONDS:
            reason = self.server.log.worker_reason(model)
            raise BackendError(f"no worker of {model} was ready for {LOST_SECONDS:.0f} s: {reason}")


async def _first(event: Coroutine[Any, Any, bool], seconds: float) -> None:
    """Waits for an event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        pass
