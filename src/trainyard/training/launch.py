"""Starts a verb in as many processes as the machine and the config ask for, and gives back their exit code.

With one process nothing is started: the verb runs where it is called. The environment says what a job of many nodes
needs: ``NPROC`` (processes of this node), ``NNODES``, ``NODE_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``, and
``MEET_SECONDS`` (how long a node waits for the others at the start). The processes find in theirs what torchrun says,
so that a verb may be started by torchrun as well. torchrun itself isn't used: it would import torch before it starts
processes that import it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trainyard.base.errors import UsageError
from trainyard.config.experiment import TrainerConfig

DEFAULT_PORT = 29500
LAST_PORT = 65535
DEFAULT_MEET_SECONDS = 600
LAUNCHER = "TRAINYARD_LAUNCHER"
"""Variable by which the processes know their launcher, by its process id."""
LISTENER = "TRAINYARD_LISTENER"
"""Variable by which rank 0 of a single node knows the socket where the others come: a file descriptor."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
GPU_FILES = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA and AMD show of their GPUs, and Windows' Linux of either."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LOOK_SECONDS = 0.05
"""How often the launcher looks after its processes."""
PEER_SECONDS = 1.0
"""Time in which a process notices that it lost its peer: one that is told to end before that may take it for a wish to
stop at the next step, which never comes."""
END_SECONDS = 30.0
"""Time to end after SIGTERM, before SIGKILL."""


def launched() -> bool:
    """Whether this process is one of a job: ours, or one that the user started by torchrun."""
    return "LOCAL_RANK" in os.environ


def needs_launch(config: TrainerConfig) -> bool:
    """Whether the verb must be started in processes of its own."""
    return not launched() and (processes(config) > 1 or nodes() > 1)


def nodes() -> int:
    """Machines of the job, from ``NNODES``."""
    return _number("NNODES", 1)


def processes(config: TrainerConfig) -> int:
    """Processes of this machine: ``NPROC``, or ``trainer.devices``, or one per GPU, or one."""
    if "NPROC" in os.environ:
        return _number("NPROC", 1)
    if isinstance(config.devices, int):
        return config.devices
    if config.devices == "cpu":
        return 1
    if not any(next(Path("/").glob(name.lstrip("/")), None) for name in GPU_FILES):
        return 1  # without torch, which takes seconds to import
    import torch

    return max(1, torch.cuda.device_count())


def launch(arguments: Sequence[str], config: TrainerConfig) -> int:
    """Runs ``python -m trainyard ARGUMENTS`` in all processes of this node; returns the exit code of the first to fail.

    A signal that it gets goes on to the processes; if they fail then, the code is the signal's.
    """
    count, place = processes(config), _meeting_place()
    started: list[subprocess.Popen[bytes]] = []
    with _kept_signals() as signals:
        try:
            with _listener() as listener:
                for local_rank in range(count):
                    started.append(_start(arguments, {**place, **_ranks(local_rank, count)}, listener))
            return _watch(started, signals)
        finally:
            for process in started:
                process.kill()  # none is left, unless the launcher itself failed
                process.wait()


def end_with_launcher() -> None:
    """Has the system end this process when the launcher, its parent, is killed by SIGKILL and can't do so itself.

    It would go on else, and write into the run that is resumed meanwhile. Linux only.
    """
    if not launched() or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL.value)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)  # it was killed before the system knew


def meeting_seconds() -> int:
    """How long a process waits for the others at the start, from ``MEET_SECONDS``."""
    return _number("MEET_SECONDS", DEFAULT_MEET_SECONDS)


def meeting_failure(error: Exception) -> str:
    """What to say when the processes can't meet."""
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    fix = (
        "check that this machine may listen on its own address"
        if nodes() == 1
        else f"check that it is the first node's, that the port is open, and that all {nodes()} nodes were started"
    )
    return f"the nodes can't meet at {address}: {fix} ({str(error).splitlines()[0]})"


def _meeting_place() -> dict[str, str]:
    """The first node's address and this one's rank, as variables; empty if there is one node."""
    if nodes() == 1:
        return {}
    if "MASTER_ADDR" not in os.environ:
        raise UsageError("NNODES is above 1, so MASTER_ADDR must name the first node's address: MASTER_ADDR=10.0.0.1")
    rank = _number("NODE_RANK", 0)
    if rank >= nodes():
        raise UsageError(f"NODE_RANK={rank} must be below NNODES={nodes()}: the nodes are counted from 0")
    port = _number("MASTER_PORT", DEFAULT_PORT)
    if port > LAST_PORT:
        raise UsageError(f"MASTER_PORT={port} must be a port, from 1 to {LAST_PORT}, that is free on the first node")
    meeting_seconds()
    return {"MASTER_ADDR": os.environ["MASTER_ADDR"], "MASTER_PORT": str(port), "GROUP_RANK": str(rank)}


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket | None]:
    """On a single node, the socket where its processes meet: opened here, so that nobody takes its port meanwhile."""
    if nodes() > 1:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def _ranks(local_rank: int, count: int) -> dict[str, str]:
    """What torchrun says to each process; every node has as many."""
    first = _number("NODE_RANK", 0) * count if nodes() > 1 else 0
    return {
        "RANK": str(first + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(nodes() * count),
        "LOCAL_WORLD_SIZE": str(count),
    }


def _start(arguments: Sequence[str], job: Mapping[str, str], listener: socket.socket | None) -> subprocess.Popen[bytes]:
    """Starts a process. It has a session of its own, so that Ctrl-C reaches it once: from here."""
    # torch warns of each try to reach a node that isn't there yet; what fails in the end, the process itself says.
    quiet = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    environment = {**quiet, **os.environ, **job, LAUNCHER: str(os.getpid())}
    passed: tuple[int, ...] = ()
    if listener is not None:
        address, port = listener.getsockname()
        environment |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "GROUP_RANK": "0"}
        if job["RANK"] == "0":
            passed = (listener.fileno(),)
            environment[LISTENER] = str(listener.fileno())
    return subprocess.Popen(
        [sys.executable, "-m", "trainyard", *arguments], env=environment, pass_fds=passed, start_new_session=True
    )


@contextlib.contextmanager
def _kept_signals() -> Iterator[list[int]]:
    """Has the signals that end a command wait in a list, but those that the caller ignores (nohup)."""
    signals: list[int] = []
    earlier = {number: signal.getsignal(number) for number in FORWARDED}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: signals.append(received))
    try:
        yield signals
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _watch(started: Sequence[subprocess.Popen[bytes]], signals: list[int]) -> int:
    """Waits for all processes; once one has failed the others are ended."""
    forwarded, failed = 0, 0
    terminate_at = kill_at = float("inf")
    while running := [process for process in started if process.poll() is None]:
        now = time.monotonic()
        if not failed and (failed := _first_failure(started)):
            terminate_at, kill_at = now + PEER_SECONDS, now + PEER_SECONDS + END_SECONDS
        while forwarded < len(signals):
            _send(running, signals[forwarded])
            forwarded += 1
        if now > terminate_at:
            _send(running, signal.SIGTERM)
            terminate_at = float("inf")
        if now > kill_at:
            _send(running, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)
    failed = failed or _first_failure(started)
    return 128 + signals[0] if failed and signals else _exit_code(failed)


def _first_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """The code of a process that failed, 0 if none did; of several at once the largest: 2 says more than a signal."""
    codes = [process.returncode for process in started if process.returncode]
    return max(codes, default=0)


def _send(running: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in running:
        process.send_signal(number)


def _exit_code(code: int) -> int:
    """A process that a signal ended has the negative signal as its code; a shell knows it as 128 + signal."""
    return 128 + -code if code < 0 else code


def _number(variable: str, default: int) -> int:
    """A whole number from the environment: above 0, but for the rank of a node, which may be 0."""
    text = os.environ.get(variable, str(default))
    least = 0 if variable == "NODE_RANK" else 1
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{variable}={text} must be a whole number of at least {least}: set it, as in {variable}=1")
    return int(text)
