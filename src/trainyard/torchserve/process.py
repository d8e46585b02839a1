"""TorchServe's processes, Java with its workers: the private folder that they work in, their start and their end."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainyard.base.errors import UsageError
from trainyard.torchserve import worker
from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.ports import LOOPBACK

CONFIG = "config.properties"
HEAP_MB, HEAP_BODIES = 256, 16
"""Java's heap, and at least so many times the largest body: the gateway lets four of them in at once. In a trial with
the usual 16 MB, 256 MB were enough.
"""
IGNORED = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|SM_TELEMETRY_LOG|TEMP|TMPDIR")
"""Variables by which a shell's surroundings would change TorchServe's configuration."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""Has glibc give freed memory back to the system: it would keep some hundred megabytes of a few large bodies, in each
process. Other systems' C libraries don't read these.
"""
END_SECONDS = 10.0
"""Time for killed processes to vanish."""
PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""
PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")
LONGEST_SOCKET = 103
"""Bytes of the path of a Unix socket, by which TorchServe speaks to its workers (104 with its end on macOS)."""
SOCKET = ".ts.sock.9000"
END = "end"
WATCHDOG = f"""\
trap '' TERM INT HUP
while read -r word; do [ "$word" = {END} ] && exit; group=$word; done
[ -n "$group" ] && kill -9 "-$group"
for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" && exit; sleep 0.5; done
"""
"""Clears up when `serve` is gone without a word, as by SIGKILL. Its stdin is a pipe from `serve`, which says the
process group of each TorchServe that it starts. Killed processes may still write into the folder while it is removed.
"""


@dataclass(frozen=True)
class RunDirectory:
    """A folder of mode 0700 with what TorchServe needs and writes; its working directory, in which it puts its keys."""

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

    @property
    def home(self) -> Path:
        """What Java takes for the packages that TorchServe is in."""
        return self.path / "home"

    @property
    def key_file(self) -> Path:
        """TorchServe's keys, which it writes when it starts and when one is renewed."""
        return self.path / "key_file.json"

    def watch(self, group: int) -> None:
        """Has the watchdog kill this process group if this process is killed."""
        with contextlib.suppress(BrokenPipeError):  # somebody killed the watchdog
            self._watchdog.write(f"{group}\n")
            self._watchdog.flush()


@contextlib.contextmanager
def open_run_directory() -> Iterator[RunDirectory]:
    """Makes the folder, and removes it at the end.

    Raises:
        UsageError: there is no place for temporary folders, or its path is too long for sockets.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="trainyard-"))
    except OSError as error:
        raise UsageError(f"no temporary folder can be made ({error}): set TMPDIR to one that can be written") from error
    try:
        if len(os.fsencode(path / "tmp" / SOCKET)) > LONGEST_SOCKET:
            raise UsageError(f"{path.parent} is too long a path for sockets: set TMPDIR to a shorter one, as /tmp")
        with watchdog(path) as pipe:
            directory = RunDirectory(path, pipe)
            for folder in (directory.store, directory.temporary):
                folder.mkdir(mode=0o700)
            yield directory
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def watchdog(folder: Path) -> Iterator[IO[str]]:
    """The pipe to a watchdog of this folder, which ends with the context."""
    command = ["/bin/sh", "-c", WATCHDOG, "watchdog", str(folder)]
    # A session of its own: Ctrl-C in a terminal is meant for serve alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdin is not None
        try:
            yield process.stdin
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(END + "\n")
                process.stdin.close()


@dataclass(frozen=True)
class Plan:
    """What TorchServe is to serve.

    Attributes:
        archives: File names in the store, by the model's name.
        threads: Of a call in a worker.
        max_body: Bytes of the largest request.
        device: ``cpu`` keeps it from looking for GPUs; with ``cuda`` each worker gets one, in turn.
        expect: Digests of which each worker must find one.
    """

    archives: Mapping[str, str]
    threads: int = 1
    max_body: int = 16_000_000
    device: str = "cpu"
    expect: tuple[str, ...] = ()


def free_ports() -> dict[str, int]:
    """Loopback ports that are free now, by the names in ``PORTS``. Another program may be faster to take one."""
    with contextlib.ExitStack() as held:
        return {name: held.enter_context(socket.create_server((LOOPBACK, 0))).getsockname()[1] for name in PORTS}


def write_config(directory: RunDirectory, plan: Plan, ports: Mapping[str, int]) -> Path:
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
        "load_models": ",".join(f"{name}={file}" for name, file in plan.archives.items()),
        "allowed_urls": f"file://{re.escape(str(directory.store))}/.*",
        "metrics_config": deployment_file("metrics.yaml"),
        "max_request_size": plan.max_body,
    }
    if plan.device == "cpu":
        own["number_of_gpu"] = 0
    lines = [deployment_file(CONFIG).read_text(encoding="utf-8")]
    # As Java reads a file of properties.
    lines += [f"{key}={str(value).replace(chr(92), chr(92) * 2)}" for key, value in own.items()]
    path = directory.path / CONFIG
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def make_home(directory: RunDirectory) -> None:
    """Makes the folder that Java takes for TorchServe's: with our worker in it, which runs TorchServe's."""
    folder = directory.home / "ts"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(worker.__file__, folder / "model_service_worker.py")
    shutil.copyfile(torchserve_home() / "ts" / "version.txt", folder / "version.txt")


def java_command(java: Java, directory: RunDirectory, config: Path, plan: Plan, debug: bool = False) -> list[str]:
    """The command that starts TorchServe, without the wrapper in Python, which doesn't pass signals on."""
    heap_mb = max(HEAP_MB, HEAP_BODIES * plan.max_body // 1_000_000)
    return [
        str(java.path),
        *java.quiet_flags(),
        f"-Xms{heap_mb}m",
        f"-Xmx{heap_mb}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+UseSerialGC",
        "-Dio.netty.allocator.type=unpooled",  # a pool has 32 MB from the start, and never gives back what it took
        f"-Dmodel_server_home={directory.home}",
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


def environment(directory: RunDirectory, plan: Plan) -> dict[str, str]:
    """The environment of TorchServe, which its workers inherit."""
    kept = {name: value for name, value in os.environ.items() if not IGNORED.fullmatch(name)}
    return {
        **MALLOC,
        **kept,
        **dict.fromkeys(THREADS, str(plan.threads)),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for work would take the other workers' time
        "TMPDIR": str(directory.temporary),
        "TEMP": str(directory.temporary),
        "PYTHONUNBUFFERED": "1",  # the last words of a worker that is killed
        **({"TRAINYARD_EXPECT": ",".join(plan.expect)} if plan.expect else {}),
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


class TorchServe:
    """A TorchServe that was started, in a process group of its own.

    Args:
        heard: Gets each line that it says, from a thread of its own.
        ended: Called when Java has ended, from the same thread.
        debug: Shows all that TorchServe says on stderr.

    Attributes:
        ports: Its loopback ports, by the names in ``PORTS``.
    """

    def __init__(
        self,
        java: Java,
        directory: RunDirectory,
        plan: Plan,
        ports: Mapping[str, int],
        heard: Callable[[str], None],
        ended: Callable[[], None],
        debug: bool = False,
    ) -> None:
        self.ports = ports
        self._heard, self._ended, self._debug = heard, ended, debug
        directory.key_file.unlink(missing_ok=True)
        make_home(directory)
        adopt_orphans()
        self._process = subprocess.Popen(
            java_command(java, directory, write_config(directory, plan, ports), plan, debug),
            cwd=directory.path,
            env=environment(directory, plan),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a group to end it by, and out of reach of a terminal's Ctrl-C
        )
        directory.watch(self._process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Java's process, and its group."""
        return self._process.pid

    def url(self, name: str) -> str:
        """The URL of one of its ports that speak HTTP."""
        return f"http://{LOOPBACK}:{self.ports[name]}"

    def signal(self) -> signal.Signals | None:
        """The signal that ended Java, if one did; it has ended."""
        code = self._process.wait()
        return signal.Signals(-code) if code < 0 else None

    def stop(self) -> None:
        """Kills Java and the workers, and waits until none is left. Whom they still had to answer, the gateway asked.

        TorchServe's own way to end takes seconds and answers nobody either.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + END_SECONDS
        while _is_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._reader.join(END_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._heard(line.rstrip("\n"))
                if self._debug:
                    print(line, end="", file=sys.stderr)
        self._ended()


def adopt_orphans() -> None:
    """Has the system give workers to this process when Java is gone, so that it can wait for their end. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _is_alive(group: int) -> bool:
    """Whether a process of the group is left. Orphans of it have come to us, and are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
