"""TorchServe's Java process with its workers: what it is told, its start and its end."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.torchserve.deployment import deployment_file
from trainyard.torchserve.java import Java
from trainyard.torchserve.ports import LOOPBACK, free_ports
from trainyard.torchserve.run_directory import RunDirectory
from trainyard.torchserve.worker_log import WorkerLog

CONFIG = "config.properties"
HEAP_MB = 512
IGNORED = re.compile(r"TS_.*|LOG_LOCATION|METRICS_LOCATION|SM_TELEMETRY_LOG|TEMP|TMPDIR")
"""Variables by which a shell's surroundings would change TorchServe's configuration."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
END_SECONDS = 10.0
"""Time for killed processes to vanish."""
PR_SET_CHILD_SUBREAPER = 36
"""From linux/prctl.h."""
PORTS = ("inference", "management", "metrics", "grpc_inference", "grpc_management")


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
    lines += [f"{key}={_escaped(value)}" for key, value in own.items()]
    path = directory.path / CONFIG
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def java_command(java: Java, directory: RunDirectory, config: Path, debug: bool = False) -> list[str]:
    """The command that starts TorchServe, without the wrapper in Python, which doesn't pass signals on."""
    packages = torchserve_home()
    return [
        str(java.path),
        *java.quiet_flags(),
        f"-Xmx{HEAP_MB}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+UseSerialGC",
        f"-Dmodel_server_home={packages}",
        f"-Djava.io.tmpdir={directory.temporary}",
        f"-Dlog4j.configurationFile={deployment_file('log4j2.xml').as_uri()}",
        *(["-Dlog4j2.level=debug"] if debug else []),
        "-cp",
        f"{packages}/ts/frontend/*",
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
    paths = [*([str(TORCH_STUB)] if needs_torch_stub() else []), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {}),
        **dict.fromkeys(THREADS, str(plan.threads)),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for work would take the other workers' time
        "TMPDIR": str(directory.temporary),
        "TEMP": str(directory.temporary),
        "PYTHONUNBUFFERED": "1",  # the last words of a worker that is killed
        **({"TRAINYARD_EXPECT": ",".join(plan.expect)} if plan.expect else {}),
    }


TORCH_STUB = Path(__file__).parent / "torch_stub"
"""A package called torch, for TorchServe in an environment without it: TorchServe's workers import torch for one
``isinstance``. It is put on the workers' path alone, and only where no real torch can be found."""


def needs_torch_stub() -> bool:
    """Whether no torch is installed, so that the workers need one to import."""
    return importlib.util.find_spec("torch") is None


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
        ended: Called when Java has ended, from a thread of its own.
        worker_ended: Called with a model's name when one of its workers has ended, from the same thread.
        debug: Shows all that TorchServe says on stderr.

    Attributes:
        ports: Its loopback ports, by the names in ``PORTS``.
        log: What it said.
    """

    def __init__(
        self,
        java: Java,
        directory: RunDirectory,
        plan: Plan,
        ended: Callable[[], None],
        worker_ended: Callable[[str], None],
        debug: bool = False,
    ) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.log = WorkerLog(worker_ended)
        self._ended, self._debug = ended, debug
        directory.key_file.unlink(missing_ok=True)
        adopt_orphans()
        command = java_command(java, directory, write_config(directory, plan, self.ports), debug)
        self._process = subprocess.Popen(
            command,
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

    def url(self, name: str) -> str:
        """The URL of one of its ports that speak HTTP."""
        return f"http://{LOOPBACK}:{self.ports[name]}"

    def stop(self) -> None:
        """Kills Java and the workers, and waits until none is left. Whom they still had to answer, the gateway asked.

        TorchServe's own way to end takes seconds and answers nobody either.
        """
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + END_SECONDS
        while _is_alive(group) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._reader.join(END_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.log.add(line.rstrip("\n"))
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


def _escaped(value: object) -> str:
    """A value as Java reads it from a file of properties."""
    return str(value).replace("\\", "\\\\")
