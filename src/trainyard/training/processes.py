"""This process among those of the job: its device, threads, output, and the signal to stop."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import distributed, nn
from torch.distributed import ProcessGroup, TCPStore  # type: ignore[attr-defined]

from trainyard.base.cpu import available_cores
from trainyard.base.errors import TrainyardError, UsageError
from trainyard.config.experiment import TrainerConfig
from trainyard.evaluation.predict import place
from trainyard.training.launch import LAUNCHER, LISTENER, launched, meeting_failure, meeting_seconds, processes
from trainyard.training.lightning import import_lightning

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.strategy import Strategy
    from torch.distributed.device_mesh import DeviceMesh

    from trainyard.training.task import TrainingTask

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1
"""From malloc.h and limits.h."""


def uses_gpu(config: TrainerConfig) -> bool:
    """Whether the config trains on GPUs here."""
    return config.devices != "cpu" and torch.cuda.is_available()


def check_hardware(config: TrainerConfig) -> None:
    """Refuses what this machine can't do, before anything is started.

    Raises:
        UsageError: FSDP or 16-bit floats without a GPU, both together, or more processes than GPUs.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", processes(config)))
    if uses_gpu(config) and local_processes > torch.cuda.device_count():
        raise UsageError(
            f"{local_processes} processes need as many GPUs, here are {torch.cuda.device_count()}: "
            "set NPROC to fewer, or trainer.devices=cpu"
        )
    if config.strategy == "fsdp" and not uses_gpu(config):
        raise UsageError("trainer.strategy=fsdp needs GPUs; on CPUs use trainer.strategy=ddp")
    if config.precision == "16-mixed" and not uses_gpu(config):
        raise UsageError("trainer.precision=16-mixed needs a GPU; on CPUs use 32 or bf16-mixed")
    if config.precision == "16-mixed" and config.strategy == "fsdp":
        raise UsageError("trainer.precision=16-mixed doesn't go with trainer.strategy=fsdp; use bf16-mixed")


def start_fabric(config: TrainerConfig) -> Fabric:
    """Joins the processes of the job, or makes a job of this one alone."""
    _let_lines_be_seen()
    import_lightning()
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    local_processes, world_size = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    gpu = uses_gpu(config)
    _set_threads(config.threads)
    _keep_freed_memory()
    # Lightning tells of its devices and backend; what matters of it, our own lines say.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=local_processes,
        num_nodes=world_size // local_processes,
        strategy=_strategy(config),
        precision=_precision(config),
        plugins=[TorchElasticEnvironment()] if launched() else [],
    )
    if world_size > 1:  # before Lightning would, without a word about who didn't come
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        _join("nccl" if gpu else "gloo")
    fabric.launch()
    return fabric


def _let_lines_be_seen() -> None:
    """Prints the library's lines where nobody has set up logging, as in a notebook; not a line once someone has."""
    library = logging.getLogger("trainyard")
    if not library.hasHandlers():
        handler = logging.StreamHandler()
        handler.addFilter(lambda _: not logging.getLogger().handlers)
        library.addHandler(handler)
        library.setLevel(logging.INFO)


def lone_fabric(config: TrainerConfig, device: torch.device) -> Fabric:
    """A fabric of this process alone, on a device of its own, which talks to no other process of the job."""
    import_lightning()
    from lightning.fabric import Fabric
    from lightning.fabric.strategies.single_device import SingleDeviceStrategy

    accelerator = "cpu" if device.type == "cpu" else "cuda"
    return Fabric(
        accelerator=accelerator, strategy=SingleDeviceStrategy(device), devices=1, precision=_precision(config)
    )


def _precision(config: TrainerConfig) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    return "32-true" if config.precision == "32" else config.precision


def _strategy(config: TrainerConfig) -> str | Strategy:
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if config.strategy == "fsdp":
        from lightning.fabric.strategies.model_parallel import ModelParallelStrategy

        return ModelParallelStrategy(shard, data_parallel_size=world_size, tensor_parallel_size=1)
    return "ddp" if world_size > 1 else "auto"


def shard(task: TrainingTask, mesh: DeviceMesh) -> TrainingTask:
    """Shards each block of a model and then the rest over all processes (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    data_parallel = mesh["data_parallel"]
    # A module's parameters belong to the first call that reaches them: inner blocks come before outer ones.
    for block in reversed(_blocks(task.model)):
        fully_shard(block, mesh=data_parallel)
    # Not the task itself: Fabric calls it around each marked method, so its hooks would run twice.
    fully_shard(task.model, mesh=data_parallel)
    return task


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network, outer before inner: layers of a transformer, blocks of a ResNet."""
    blocks = (
        child
        for parent in network.modules()
        if isinstance(parent, nn.ModuleList | nn.Sequential)
        for child in parent.children()
        if any(True for _ in child.children()) and any(True for _ in child.parameters())
    )
    return list(dict.fromkeys(blocks))


def share_buffers(module: nn.Module) -> None:
    """Gives all processes the buffers of rank 0: batch norm's running statistics are of each one's own batches."""
    if many_processes():
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def many_processes() -> bool:
    """Whether this process has joined others and works with them."""
    return place()[1] > 1


@contextlib.contextmanager
def join_processes() -> Iterator[torch.device]:
    """Joins the processes of the job, if it has several; yields this process's device."""
    # More processes than GPUs compute the same on the CPU.
    gpu = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
    _set_threads(None)
    _keep_freed_memory()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    _join("cpu:gloo,cuda:nccl" if gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _join(backend: str) -> None:
    """Meets the other processes where the launcher says; torchrun has a way of its own."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = _meet(rank, world_size) if LAUNCHER in os.environ else None
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)


def _meet(rank: int, world_size: int) -> TCPStore:
    """The store by which the processes find each other; returns once all of them are there.

    Raises:
        TrainyardError: they don't come, or the place is taken.
    """
    listener = os.environ.get(LISTENER)
    try:
        return TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            world_size,
            is_master=rank == 0,
            timeout=timedelta(seconds=meeting_seconds()),
            master_listen_fd=int(listener) if listener else None,
        )
    except (distributed.DistError, RuntimeError, TimeoutError) as error:
        raise TrainyardError(meeting_failure(error)) from error


def _set_threads(threads: int | None) -> None:
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, available_cores() // local_processes))


def _keep_freed_memory() -> None:
    """Has glibc keep what is freed, since the next step needs as much; a step on two threads takes an eighth less.

    Else it gives large tensors back to the system at each step, and every page of them is faulted in again.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_INT)
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


def leave_processes() -> None:
    """Ends the job's communication: what follows is done by one process alone, however long it takes."""
    if many_processes():
        distributed.barrier()
        distributed.destroy_process_group()


def is_muted() -> bool:
    """Whether this rank prints nothing: all but rank 0, or but those that ``LOG_RANK`` names (``0,1``)."""
    loud = os.environ.get("LOG_RANK", "0").split(",")
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") not in loud


def mute_other_ranks() -> None:
    """Silences the ranks that aren't to print; a crash of one is still seen."""
    if not is_muted():
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    logging.getLogger().setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


class StopSignal:
    """Remembers SIGTERM until all processes can stop at the same step, so that none waits for a gone peer.

    Used as a context manager; the signal's earlier handler is put back at the end.
    """

    def __init__(self) -> None:
        self.received = False
        # NCCL can't carry a tensor of the CPU, and one on the GPU would make each step wait for it.
        self._group = cast(ProcessGroup, distributed.new_group(backend="gloo")) if many_processes() else None
        self._earlier = signal.getsignal(signal.SIGTERM)

    def __enter__(self) -> StopSignal:
        signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._earlier)

    def agreed(self) -> bool:
        """Whether any process of the job got the signal; every process must ask at every step."""
        if self._group is None:
            return self.received
        flag = torch.tensor([int(self.received)])
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(flag.item())

    def _remember(self, _signal: int, _frame: FrameType | None) -> None:
        self.received = True
