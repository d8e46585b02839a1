"""TorchServe as the server sees it: started, watched while it loads and while it serves, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Collection, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from trainyard.base.errors import TrainyardError, UsageError
from trainyard.client.access import read_token
from trainyard.gateway.health import Health
from trainyard.torchserve.java import Java
from trainyard.torchserve.process import Plan, RunDirectory, TorchServe, free_ports
from trainyard.torchserve.state import Look, Pulse, WorkerLog

log = logging.getLogger(__name__)

STARTS = 3
"""Times that other ports are tried when another program took one in the moment before."""
PORT_TAKEN = "Address already in use"
LOADING_POLL = 0.05
POLL = 1.0
"""Seconds between two looks at the workers while they load, and while they serve."""
LAST_WORDS = 0.5
"""Seconds to wait for the rest of what a worker says when it ends."""
MANAGEMENT_SECONDS = 10.0
"""Limit of a call of the management port."""
LOST_SECONDS = 180.0
"""A model that no worker was ready for in so long won't come back: better that the whole is started again."""


class BackendError(TrainyardError):
    """TorchServe, or a worker of it, doesn't do what it should."""


class Workers(NamedTuple):
    """The workers of a model's default version.

    Attributes:
        ready: Process ids of those that have loaded it.
        wanted: How many there should be.
    """

    ready: frozenset[int]
    wanted: int


class Backend:
    """TorchServe as the server sees it: started, watched while it loads and while it serves, and ended.

    Args:
        java: What TorchServe runs on.
        directory: The private folder.
        plan: What it serves.
    """

    def __init__(self, java: Java, directory: RunDirectory, plan: Plan) -> None:
        self._java, self._home, self._plan = java, directory, plan
        self._debug = bool(os.environ.get("TRAINYARD_DEBUG"))
        self._server: TorchServe | None = None
        self._ports = free_ports()

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

        Which ports it took is known at once: those of the last time, if there was one.
        """
        import aiohttp

        loop = asyncio.get_running_loop()
        died, self._log = asyncio.Event(), WorkerLog()

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(died.set)

        self._died = died
        self._server = TorchServe(self._java, self._home, self._plan, self._ports, self._log.add, ended, self._debug)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=MANAGEMENT_SECONDS))

    async def until_loaded(self) -> None:
        """Waits until each model's workers have loaded it.

        Raises:
            BackendError: a worker ended before, or TorchServe did; with the reason that it gave.
        """
        for _ in range(STARTS):
            if await self._loaded(self._plan.archives):
                return
            await self.stop()
            self._ports = free_ports()
            await self.start()
        raise BackendError("TorchServe found no free ports: see what listens on this machine, and start it again")

    async def watch(self, health: Health) -> None:
        """Keeps ``health`` informed, and ends workers that are stopped or stuck, so that TorchServe starts others.

        Raises:
            BackendError: TorchServe ended, or a model has been without a worker for ``LOST_SECONDS``.
        """
        pulse, models = Pulse(), list(self._plan.archives)
        seen = dict.fromkeys(models, time.monotonic())
        while True:
            self.check_alive()
            self._end_if_still(self.server.pid, "TorchServe", pulse)
            while self._log.ended:
                model = self._log.ended.popleft()
                health.restarts[model] += 1
                reason = self._log.worker_reason(model)
                log.warning("a worker of %s ended (%s); TorchServe starts another", model, reason)
            for model, workers in zip(models, await asyncio.gather(*map(self._workers, models)), strict=True):
                ready = workers.ready if workers else ()
                for pid in ready:
                    self._end_if_still(pid, f"a worker of {model}", pulse)
                if any((look := Look.at(pid)) is None or not look.is_stopped for pid in ready):
                    seen[model] = time.monotonic()
                    health.missing -= {model}
                else:
                    health.missing |= {model}
                    self._check_lost(model, time.monotonic() - seen[model])
            await _first(self._died.wait(), POLL)

    async def stop(self) -> None:
        """Ends all, and waits for it."""
        if self._server is not None:
            await self._session.close()
            await asyncio.to_thread(self._server.stop)

    def check_alive(self) -> None:
        """Checks that TorchServe runs.

        Raises:
            BackendError: it has ended; names the signal that ended it, or the reason that it gave.
        """
        if self._died.is_set():
            number = self.server.signal()
            if number is not None:
                raise BackendError(f"TorchServe was ended by signal {number.value} ({number.name})")
            raise BackendError(f"TorchServe ended of its own accord: {self._log.server_reason()}")

    async def _loaded(self, models: Collection[str]) -> bool:
        """Waits until all are loaded; false if another program had taken a port."""
        waiting = set(models)
        while waiting:
            if self._died.is_set() and self._log.says(PORT_TAKEN):
                return False
            self.check_alive()
            if self._log.ended:
                model = self._log.ended.popleft()
                await asyncio.sleep(LAST_WORDS)
                raise BackendError(f"a worker can't load the model {model}: {self._log.worker_reason(model)}")
            for model in sorted(waiting):
                workers = await self._workers(model)
                if workers and workers.wanted and len(workers.ready) >= workers.wanted:
                    waiting.remove(model)
            await _first(self._died.wait(), LOADING_POLL)
        return True

    async def _workers(self, model: str) -> Workers | None:
        """The workers of a model; nothing while the management port doesn't answer, or doesn't know it."""
        import aiohttp

        url = f"{self.server.url('management')}/models/{model}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, UsageError):
            headers = {"Authorization": f"Bearer {read_token(self._home.key_file, 'management')}"}
            async with self._session.get(url, headers=headers) as response:
                if response.status == 200:
                    [version] = await response.json()
                    ready = [worker["pid"] for worker in version["workers"] if worker["status"] == "READY"]
                    return Workers(frozenset(ready), version["minWorkers"])
        return None

    def _end_if_still(self, pid: int, name: str, pulse: Pulse) -> None:
        if reason := pulse.complaint(pid, time.monotonic()):
            log.warning("%s (process %d) is ended: %s", name, pid, reason)
            self._log.blame(pid, reason)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _check_lost(self, model: str, seconds: float) -> None:
        if seconds > LOST_SECONDS:
            reason = self._log.worker_reason(model)
            raise BackendError(f"no worker of {model} was ready for {LOST_SECONDS:.0f} s: {reason}")


async def _first(event: Coroutine[Any, Any, bool], seconds: float) -> None:
    """Waits for an event, but no longer than this."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event
