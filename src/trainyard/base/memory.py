"""How much memory a program may take: the machine's, within the limit of a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainyard.base.cpu import CGROUPS

FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Files with limit and usage, and the usage's part that is a cache of files; cgroup v2, v1."""


@dataclass(frozen=True)
class Memory:
    """Memory in bytes."""

    free: int
    total: int


def memory() -> Memory:
    """What is free and what there is.

    Raises:
        ImportError: psutil isn't installed.
    """
    import psutil

    machine = psutil.virtual_memory()
    containers = list(_containers())
    return Memory(
        max(0, min([machine.available, *(one.free for one in containers)])),
        min([machine.total, *(one.total for one in containers)]),
    )


def _containers() -> Iterator[Memory]:
    for limit_file, usage_file, cache_key in FILES:
        limit = _read(CGROUPS / limit_file)
        if not limit.isdigit():  # no file, or "max"
            continue
        usage = _read(CGROUPS / usage_file)
        statistics = dict(line.split() for line in _read((CGROUPS / usage_file).with_name("memory.stat")).splitlines())
        # Pages of files that nobody uses are given up before a process is killed.
        used = int(usage or 0) - int(statistics.get(cache_key, 0))
        yield Memory(int(limit) - used, int(limit))


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
