"""Checks of the machine: Python, memory, disk, ports. Packages, GPUs, Java and the library have files of their own."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from trainyard.base.files import is_writable, nearest_existing
from trainyard.base.memory import memory
from trainyard.doctor.checks import Check
from trainyard.doctor.gpu import check_gpu
from trainyard.doctor.java import check_java
from trainyard.doctor.library import check_library
from trainyard.doctor.packages import SETUP, check_packages

PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest Python that is supported."""
FOLDERS = (Path("runs"), Path("~/.cache/trainyard"))
"""Where runs and caches lie by default."""
PORTS = (8080, 8081, 8082)
"""TorchServe's: inference, management, metrics."""
MIN_DISK = 5e9
MIN_MEMORY = 2e9
"""What should be free, in bytes."""


def check_machine(folders: Sequence[Path] = FOLDERS, ports: Sequence[int] = PORTS) -> list[Check]:
    """Runs all checks of the machine.

    Args:
        folders: Those that will be written to: of the runs and of the cache.
        ports: Those that TorchServe will listen on.
    """
    return [
        check_python(),
        *check_packages(),
        *check_library(),
        check_gpu(),
        check_memory(),
        *(check_disk(folder) for folder in folders),
        check_java(),
        check_ports(ports),
    ]


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one that the project is tested with."""
    detail = f"{platform.python_version()} ({sys.executable})"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Check("python", "ok", detail)
    span = " to ".join(".".join(map(str, end)) for end in PYTHONS)
    return Check("python", "error", f"{detail}; {span} is supported", f"PYTHON=python3.12 {SETUP}")


def check_memory() -> Check:
    """Whether enough memory is free, within the limit of a container."""
    try:
        found = memory()
    except ImportError:
        return Check("memory", "warning", "unknown, as psutil isn't installed", SETUP)
    detail = f"{_size(found.free)} free of {_size(found.total)}"
    if found.free < MIN_MEMORY:
        fix = "end other programs, or choose a smaller data.batch_size and model"
        return Check("memory", "warning", detail, fix)
    return Check("memory", "ok", detail)


def check_disk(folder: Path) -> Check:
    """Whether ``folder``, which may not be there yet, can be written to and has room."""
    name = f"disk of {folder}"
    there = nearest_existing(folder)
    if not is_writable(there):
        fix = "change its permissions, or choose another folder (out, data.cache)"
        return Check(name, "error", f"{there} can't be written to", fix)
    free = shutil.disk_usage(there).free
    if free < MIN_DISK:
        return Check(
            name, "warning", f"{_size(free)} free", "delete old runs, or choose another disk (out, data.cache)"
        )
    return Check(name, "ok", f"{_size(free)} free")


def check_ports(ports: Sequence[int]) -> Check:
    """Whether TorchServe's ports are free."""
    taken = [port for port in ports if not _is_free(port)]
    if taken:
        numbers = ", ".join(map(str, taken))
        fix = "end what listens there, or serve on other ports; only serving needs them"
        return Check("ports", "warning", f"{numbers} taken", fix)
    return Check("ports", "ok", f"{', '.join(map(str, ports))} free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Without it, a port whose last connection was closed a minute ago would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
