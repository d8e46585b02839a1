"""TorchServe as the server sees it: Java and its workers, watched while they load and while they serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from trainyard.base.errors import TrainyardError
from trainyard.gateway.health import Health
from trainyard.torchserve.java import Java
from trainyard.torchserve.ports import LOOPBACK
from trainyard.torchserve.process import RunDirectory, environment, free_ports, java_command, make_home, write_config
from trainyard.torchserve.state import Pulse, TorchServeLog, look_at
from trainyard.torchserve.store import Served

log = logging.getLogger(__name__)

STARTS = 3
"""Times that other ports are tried when another program took one in the moment before."""
AT_REST = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
PORT_TAKEN = "Address already in use"
LOADING_POLL, POLL = 0.05, 1.0
"""Seconds between two looks at the workers while they load, and while they serve."""
LAST_WORDS = 0.5
"""Seconds to wait for the rest of what a worker says when it ends."""
LOST_SECONDS = 180.0
"""A model that no worker was ready for in so long won't come back: better that the whole is started again."""
END_SECONDS = 10.0
"""Time for killed processes to vanish."""


class BackendError(TrainyardError):
    """TorchServe, or a worker of it, doesn't do what it should."""


class Backend:
    """TorchServe: Java, in a process group of its own, with the workers that it starts.

    Args:
        java: What it runs on.
        directory: The private folder.
        models: What it serves.
        max_body: Bytes of the largest request.
    """

    def __init__(self, java: Java, directory: RunDirectory, models: Sequence[Served], max_body: int) -> None:
        self._java, self._home, self._models, self._max_body = java, directory, models, max_body
        self._debug = bool(os.environ.get("TRAINYARD_DEBUG"))
        self._ports = free_ports()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def key_file(self) -> Path:
        """TorchServe's own key file."""
        return self._home.key_file

    def url(self, port: str) -> str:
        """The URL of one of its loopback ports that speak HTTP, by the names in ``PORTS``."""
        return f"http://{LOOPBACK}:{self._ports[port]}"

    async def start(self) -> None:
        """Starts TorchServe; it has bound its ports, those of the last time, or has ended, some seconds later."""
        self._home.key_file.unlink(missing_ok=True)
        make_home(self._home)
        config = write_config(self._home, self._models, self._max_body, self._ports)
        self._log = TorchServeLog()
        self._process = process = await asyncio.create_subprocess_exec(
            *java_command(self._java, self._home, config, self._max_body, self._debug),
            cwd=self._home.path,
            env=environment(self._home, self._models),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a group to end it by, and out of reach of a terminal's Ctrl-C
        )
        self._home.watch(process.pid)
        assert process.stdout is not None
        self._hearing = asyncio.create_task(self._hear(process.stdout))

    async def until_loaded(self) -> None:
        """Waits until each model's workers have loaded it.

        Raises:
            BackendError: a worker ended before, or TorchServe did; with the reason that it gave.
        """
        starts = 1
        while not await self._are_all_ready():
            if self._hearing.done() and self._log.says(PORT_TAKEN) and starts < STARTS:
                await self.stop()
                self._ports = free_ports()
                await self.start()
                starts += 1
            await self.check_alive()
            if self._log.ended:
                life = self._log.ended.popleft()
                await asyncio.sleep(LAST_WORDS)
                raise BackendError(f"a worker can't load the model {life.model}: {life.why_ended}")
            await asyncio.wait({self._hearing}, timeout=LOADING_POLL)

    async def _are_all_ready(self) -> bool:
        if any(len(self._log.ready(model.name)) < model.settings.workers for model in self._models):
            return False
        with contextlib.suppress(ConnectionError):  # it binds its ports, this one last, while workers load already
            _, writer = await asyncio.open_connection(LOOPBACK, self._ports["metrics"])
            writer.close()
            return True
        return False

    async def watch(self, health: Health) -> None:
        """Keeps ``health`` informed, and ends processes that are stopped or stuck, so that others are started.

        Raises:
            BackendError: TorchServe ended, or a model has been without a worker for ``LOST_SECONDS``.
        """
        pulse, models = Pulse(), [model.name for model in self._models]
        seen, reasons = dict.fromkeys(models, time.monotonic()), dict.fromkeys(models, "it said nothing")
        while True:
            await self.check_alive()
            assert self._process is not None
            while self._log.ended:
                life = self._log.ended.popleft()
                health.restarts[life.model] += 1
                reasons[life.model] = life.why_ended
                log.warning("a worker of %s ended (%s); TorchServe starts another", life.model, life.why_ended)
            _end_if_still(self._process.pid, "TorchServe", pulse)
            for model in models:
                ready = self._log.ready(model)
                for life in ready:
                    life.reason = _end_if_still(life.pid, f"a worker of {model}", pulse) or life.reason
                # TorchServe says of a worker's end only when it has noticed.
                if any(look_at(life.pid).get("status", psutil.STATUS_ZOMBIE) not in AT_REST for life in ready):
                    seen[model] = time.monotonic()
                    health.missing -= {model}
                else:
                    health.missing |= {model}
                if time.monotonic() - seen[model] > LOST_SECONDS:
                    raise BackendError(f"no worker of {model} was ready for {LOST_SECONDS:.0f} s: {reasons[model]}")
            await asyncio.wait({self._hearing}, timeout=POLL)

    async def check_alive(self) -> None:
        """Checks that TorchServe runs.

        Raises:
            BackendError: it has ended; names the signal that ended it, or the reason that it gave.
        """
        assert self._process is not None
        if self._hearing.done():
            code = await self._process.wait()
            if code < 0:
                raise BackendError(f"TorchServe was ended by signal {-code} ({signal.Signals(-code).name})")
            raise BackendError(f"TorchServe ended of its own accord: {self._log.reason()}")

    async def stop(self) -> None:
        """Kills Java and the workers, and waits until none is left. Whom they still had to answer, the gateway asked.

        TorchServe's own way to end takes seconds and answers nobody either.
        """
        if self._process is None:
            return
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        await self._process.wait()
        self._home.watch(None)
        await asyncio.to_thread(_wait_for_end, group)
        await asyncio.wait({self._hearing}, timeout=END_SECONDS)
        self._process = None

    async def _hear(self, lines: asyncio.StreamReader) -> None:
        """Takes all that TorchServe says, until its end."""
        while True:
            try:
                line = (await lines.readline()).decode(errors="replace")
            except ValueError:  # of more than 64 kB: nobody's reason
                continue
            if not line:
                return
            self._log.add(line.rstrip("\n"))
            if self._debug:
                print(line, end="", file=sys.stderr)


def _end_if_still(pid: int, name: str, pulse: Pulse) -> str | None:
    """Ends a process that will do nothing any more; says why, if it is one."""
    if reason := pulse.complaint(pid, time.monotonic()):
        log.warning("%s (process %d) is ended: %s", name, pid, reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return reason


def _wait_for_end(group: int) -> None:
    """Waits until no process of a killed group is left. As process 1 it is their parent now, and reaps them."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):  # it is gone
            if os.getpgid(process.pid) == group:
                left.append(process)
    psutil.wait_procs(left, END_SECONDS)
