"""What TorchServe is started with: a private folder, a configuration, a command and an environment."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trainyard.base.errors import UsageError
from trainyard.torchserve import worker
from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.ports import LOOPBACK

if TYPE_CHECKING:
    from trainyard.torchserve.store import Served

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
    """Makes the folder that Java takes for TorchServe's: with our worker in it, which runs TorchServe's."""
    folder = directory.home / "ts"
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
