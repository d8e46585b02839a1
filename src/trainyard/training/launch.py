"""Starts a verb in as many processes as the machine and the config ask for, by torchrun, and gives back its exit code.

With one process nothing is started: the verb runs where it is called. The environment says what a job of many nodes
needs: ``NPROC`` (processes of this node), ``NNODES``, ``NODE_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``, and
``MEET_SECONDS`` (how long a node waits for the others at the start).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence

from trainyard.base.errors import EXIT_FAILED, UsageError
from trainyard.config.experiment import TrainerConfig

DEFAULT_PORT = 29500
LAST_PORT = 65535
DEFAULT_MEET_SECONDS = 600
LAUNCHER = "TRAINYARD_LAUNCHER"
"""Variable by which the processes know their launcher, by its process id."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def launched() -> bool:
    """Whether torchrun started this process already."""
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
    import torch

    return max(1, torch.cuda.device_count())


def launch(arguments: Sequence[str], config: TrainerConfig) -> int:
    """Runs ``python -m trainyard ARGUMENTS`` in all processes of this node; returns the exit code of the first to fail.

    torchrun alone turns every code into 1 with a traceback. A signal that it gets goes on to the processes.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # What failed, the process itself has said; torchrun's log would say it again, at length.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.distributed.run").setLevel(logging.CRITICAL)
    # Each process sets its own threads; without this torchrun warns that it chose 1.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        run.run(  # type: ignore[no-untyped-call]
            run.parse_args(  # type: ignore[no-untyped-call]
                [*_rendezvous(), f"--nproc-per-node={processes(config)}", "-m", "trainyard", *arguments]
            )
        )
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return _exit_code(failure.exitcode)
    except SignalException as error:
        return 128 + error.sigval.value
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        print(f"trainyard: the nodes can't meet at {_address()}: {_meeting_fix()} ({error})", file=sys.stderr)
        return EXIT_FAILED
    return 0


def end_with_launcher() -> None:
    """Has the system end this process when torchrun, its parent, is killed by SIGKILL and can't do so itself.

    It would go on else, and write into the run that is resumed meanwhile. Linux only.
    """
    if not launched() or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL.value)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)  # it was killed before the system knew


def _rendezvous() -> list[str]:
    if nodes() == 1:
        return ["--standalone"]
    if "MASTER_ADDR" not in os.environ:
        raise UsageError("NNODES is above 1, so MASTER_ADDR must name the first node's address: MASTER_ADDR=10.0.0.1")
    rank = _number("NODE_RANK", 0)
    if rank >= nodes():
        raise UsageError(f"NODE_RANK={rank} must be below NNODES={nodes()}: the nodes are counted from 0")
    port = _number("MASTER_PORT", DEFAULT_PORT)
    if port > LAST_PORT:
        raise UsageError(f"MASTER_PORT={port} must be a port, from 1 to {LAST_PORT}, that is free on the first node")
    seconds = _number("MEET_SECONDS", DEFAULT_MEET_SECONDS)
    return [
        f"--nnodes={nodes()}",
        f"--node-rank={rank}",
        f"--master-addr={os.environ['MASTER_ADDR']}",
        f"--master-port={port}",
        f"--rdzv-conf=timeout={seconds}",
    ]


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR', 'localhost')}:{os.environ.get('MASTER_PORT', DEFAULT_PORT)}"


def _meeting_fix() -> str:
    if nodes() == 1:
        return "check that this machine may listen on its own address"
    return f"check that it is the first node's, that the port is open, and that all {nodes()} nodes were started"


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
