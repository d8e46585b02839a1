"""TorchServe as the server sees it: how Java is started, and watched while models load and while they are served."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from trainyard.base.errors import TrainyardError, UsageError
from trainyard.gateway.health import Health
from trainyard.torchserve import worker
from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.ports import LOOPBACK
from trainyard.torchserve.state import Pulse, TorchServeLog, look_at

if TYPE_CHECKING:
    from trainyard.torchserve.store import Served

log = logging.getLogger(__name__)

CONFIG = "config.properties"
HEAP_MB, HEAP_BODIES = 256, 16
"""Java's heap, and at least so many times the largest body: the gateway lets four of them in at once. In a trial with
the usual 16 MB, 256 MB were enough.
"""
IGNORED = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|SM_TELEMETRY_LOG|TEMP|TMPDIR")
"""Variables by which a shell's surroundings would change TorchServe's configuration."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "8388608", "MALLOC_TRIM_THRESHOLD_": "16777216"}
"""Has glibc give freed memory back to the system: it would keep some hundred megabytes of a few large bodies, in each
process. What a batch of 8 images of 224 pixels needs, 5 MB, it may keep: new pages for each batch took a tenth of a
ResNet-18's time. Other systems' C libraries don't read these.
"""
PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
LONGEST_SOCKET = 103
"""Bytes of the path of a Unix socket, by which TorchServe speaks to its workers (104 with its end on macOS)."""
SOCKET = ".ts.sock.9000"
ENVELOPE = 1_000_000
"""Bytes by which a batch may be larger than the bodies in it: 1,024 types of at most 8 kB don't come together."""
ANSWERS = 100_000_000
"""Bytes of all answers to a batch, as 32 requests of 128 items have with some hundred probabilities each."""
WATCHDOG = """\
trap '' TERM INT HUP
while read -r group; do watched=$group; done
[ -n "$watched" ] && kill -9 "-$watched"
for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" && exit; sleep 0.5; done
"""
"""Clears up when `serve` has ended, be it without a word, as by SIGKILL. Its stdin is a pipe from `serve`, which says
the process group of each TorchServe that it starts. Killed processes may still write while the folder is removed.
"""
STARTS = 3
"""Times that other ports are tried when another program took one in the moment before."""
AT_REST = (None, psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
LOADING_POLL, POLL = 0.05, 1.0
"""Seconds between two looks at the workers while they load, and while they serve."""
LAST_WORDS = 0.5
"""Seconds to wait for the rest of what a worker says when it ends."""
LOST_SECONDS = 180.0
"""A model that no worker was ready for in so long won't come back: better that the whole is started again."""
END_SECONDS = 10.0
"""Time for killed processes to vanish."""


@dataclass(frozen=True)
class RunDirectory:
    """A folder of mode 0700 with what TorchServe needs and writes.

    It is TorchServe's working directory, in which it puts its keys, and what Java takes for TorchServe's packages.
    """

    path: Path
    _watchdog: IO[str]

    @property
    def store(self) -> Path:
        """The archives."""
        return self.path / "store"

    @property
    def temporary(self) -> Path:
        """Where Java unpacks the archives and makes its sockets; the workers' temporary folder too."""
        return self.path / "tmp"

    def watch(self, group: int | None) -> None:
        """Has the watchdog kill this process group, or none any more, when this process is gone."""
        with contextlib.suppress(BrokenPipeError):  # somebody killed the watchdog
            self._watchdog.write(f"{group or ''}\n")
            self._watchdog.flush()


@contextlib.contextmanager
def open_run_directory() -> Iterator[RunDirectory]:
    """Makes the folder, which the watchdog removes when this process leaves the context, or is killed.

    Raises:
        UsageError: there is no place for temporary folders, or its path is too long for sockets.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="trainyard-"))
    except OSError as error:
        raise UsageError(f"no temporary folder can be made ({error}): set TMPDIR to one that can be written") from error
    command = ["/bin/sh", "-c", WATCHDOG, "watchdog", str(path)]
    # A session of its own: Ctrl-C in a terminal is meant for serve alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as watchdog:
        assert watchdog.stdin is not None
        directory = RunDirectory(path, watchdog.stdin)
        if len(os.fsencode(directory.temporary / SOCKET)) > LONGEST_SOCKET:
            raise UsageError(f"{path.parent} is too long a path for sockets: set TMPDIR to a shorter one, as /tmp")
        try:
            for folder in (directory.store, directory.temporary):
                folder.mkdir(mode=0o700)
            yield directory
        finally:
            directory.watch(None)


def free_ports() -> dict[str, int]:
    """Loopback ports that are free now, by the names in ``PORTS``. Another program may be faster to take one."""
    with contextlib.ExitStack() as held:
        return {name: held.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for name in PORTS}


def write_config(directory: RunDirectory, models: Sequence[Served], max_body: int, ports: Mapping[str, int]) -> Path:
    """Writes ``config.properties``: the lines of the deployment's own, and those that are this server's."""
    own = {
        "inference_address": f"http://{LOOPBACK}:{ports['inference']}",
        "management_address": f"http://{LOOPBACK}:{ports['management']}",
        "metrics_address": f"http://{LOOPBACK}:{ports['metrics']}",
        "grpc_inference_address": LOOPBACK,
        "grpc_management_address": LOOPBACK,
        "grpc_inference_port": ports["grpc_inference"],
        "grpc_management_port": ports["grpc_management"],
        "model_store": directory.store,
        "load_models": ",".join(f"{model.name}={model.archive}" for model in models),
        "allowed_urls": f"file://{re.escape(str(directory.store))}/.*",
        "metrics_config": deployment_file("metrics.yaml"),
        "max_request_size": max_body + ENVELOPE,
        "max_response_size": ANSWERS,
    }
    if all(model.settings.device == "cpu" for model in models):
        own["number_of_gpu"] = 0  # else each worker gets one of them, in turn
    lines = [deployment_file(CONFIG).read_text(encoding="utf-8")]
    # As Java reads a file of properties.
    lines += [f"{key}={str(value).replace(chr(92), chr(92) * 2)}" for key, value in own.items()]
    path = directory.path / CONFIG
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def make_home(directory: RunDirectory) -> None:
    """Puts what Java looks for among TorchServe's packages into the folder: our worker, which runs TorchServe's."""
    folder = directory.path / "ts"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(worker.__file__, folder / "model_service_worker.py")
    shutil.copyfile(torchserve_home() / "ts" / "version.txt", folder / "version.txt")


def java_command(java: Java, directory: RunDirectory, config: Path, max_body: int, debug: bool = False) -> list[str]:
    """The command that starts TorchServe, without the wrapper in Python, which doesn't pass signals on."""
    heap_mb = max(HEAP_MB, HEAP_BODIES * max_body // 1_000_000)
    return [
        str(java.path),
        *java.quiet_flags(),
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # the second compiler takes more time than it saves for many minutes
        "-Dio.netty.allocator.type=unpooled",  # a pool has 32 MB from the start, and never gives back what it took
        f"-Dmodel_server_home={directory.path}",
        f"-Djava.io.tmpdir={directory.temporary}",
        f"-Dlog4j.configurationFile={deployment_file('log4j2.xml').as_uri()}",
        *(["-Dlog4j2.level=debug"] if debug else []),
        "-cp",
        f"{torchserve_home()}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(config),
        "-s",
        str(directory.store),
        "-ncs",
    ]


def environment(directory: RunDirectory, models: Sequence[Served]) -> dict[str, str]:
    """The environment of TorchServe, which its workers inherit."""
    kept = {name: value for name, value in os.environ.items() if not IGNORED.fullmatch(name)}
    return {
        **MALLOC,
        **kept,
        **dict.fromkeys(THREADS, str(max(model.settings.threads for model in models))),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for work would take the other workers' time
        "TMPDIR": str(directory.temporary),
        "TEMP": str(directory.temporary),
        "PYTHONUNBUFFERED": "1",  # the last words of a worker that is killed
        "TRAINYARD_EXPECT": ",".join(model.answers.digest for model in models),
    }


def torchserve_home() -> Path:
    """The folder of packages that TorchServe is in.

    Raises:
        ModuleNotFoundError: it isn't installed.
    """
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'ts'", name="ts")
    return Path(spec.origin).parent.parent


class BackendError(TrainyardError):
    """TorchServe, or a worker of it, doesn't do what it should."""


class Backend:
    """TorchServe: Java, in a process group of its own, with the workers that it starts.

    Args:
        max_body: Bytes of the largest request.

    Attributes:
        key_file: TorchServe's keys, which it writes when it starts and when one is renewed.
    """

    def __init__(self, java: Java, directory: RunDirectory, models: Sequence[Served], max_body: int) -> None:
        self._java, self._directory, self._models, self._max_body = java, directory, models, max_body
        self._debug = bool(os.environ.get("TRAINYARD_DEBUG"))
        self._ports = free_ports()
        self._process: asyncio.subprocess.Process | None = None
        self.key_file = directory.path / "key_file.json"

    def url(self, port: str) -> str:
        """The URL of one of its loopback ports that speak HTTP, by the names in ``PORTS``."""
        return f"http://{LOOPBACK}:{self._ports[port]}"

    async def start(self) -> None:
        """Starts TorchServe; it has bound its ports, those of the last time, or has ended, some seconds later."""
        self.key_file.unlink(missing_ok=True)
        make_home(self._directory)
        config = write_config(self._directory, self._models, self._max_body, self._ports)
        self._log = TorchServeLog()
        self._process = process = await asyncio.create_subprocess_exec(
            *java_command(self._java, self._directory, config, self._max_body, self._debug),
            cwd=self._directory.path,
            env=environment(self._directory, self._models),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a group to end it by, and out of reach of a terminal's Ctrl-C
        )
        self._directory.watch(process.pid)
        assert process.stdout is not None
        self._hearing = asyncio.create_task(self._hear(process.stdout))

    async def until_loaded(self) -> None:
        """Waits until each model's workers have loaded it.

        Raises:
            BackendError: a worker ended before, or TorchServe did; with the reason that it gave.
        """
        starts = 1
        while not await self._are_all_ready():
            if self._hearing.done() and self._log.is_port_taken and starts < STARTS:
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
                if any(look_at(life.pid).get("status") not in AT_REST for life in ready):
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
            raise BackendError(f"TorchServe ended of its own accord: {self._log.reason}")

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
        self._directory.watch(None)
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
