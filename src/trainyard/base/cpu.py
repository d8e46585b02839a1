"""What the processor can do: int8 kernels differ by it in speed and, without VNNI, in their answers."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux tells the limits of a container."""
Isa = Literal["avx512_vnni", "avx_vnni", "avx512", "avx2", "arm64", "other"]
"""The best instruction set for int8 that a processor has. ``avx512_vnni`` and ``avx_vnni`` multiply and add bytes into
32 bits; ``avx512`` and ``avx2`` go through 16 bits, which can overflow."""

KEPT_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8",
              "amx_bf16", "asimddp", "i8mm", "sve")  # fmt: skip
"""Flags that a model's speed or answers can depend on."""


@dataclass(frozen=True)
class Cpu:
    """A processor.

    Attributes:
        name: As it calls itself.
        flags: Those of ``KEPT_FLAGS`` that it has.
        cores: Those that this process may use.
    """

    name: str
    flags: tuple[str, ...]
    cores: int

    @property
    def isa(self) -> Isa:
        """The best instruction set for int8."""
        if platform.machine().lower() in ("aarch64", "arm64"):
            return "arm64"
        known: tuple[tuple[str, Isa], ...] = (
            ("avx512_vnni", "avx512_vnni"), ("avx_vnni", "avx_vnni"), ("avx512f", "avx512"), ("avx2", "avx2"),
        )  # fmt: skip
        return next((isa for flag, isa in known if flag in self.flags), "other")


def this_cpu() -> Cpu:
    """The processor of this machine."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = (fields.get("flags") or fields.get("Features") or "").split()
    name = fields.get("model name") or platform.processor() or platform.machine()
    return Cpu(name, tuple(flag for flag in KEPT_FLAGS if flag in present), available_cores())


def available_cores() -> int:
    """CPU cores that this process may use, within the limit of a container (``--cpus``), rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _cpu_limit()
    return min(cores, max(1, math.ceil(quota / period))) if quota > 0 and period > 0 else cores


def _cpu_limit() -> tuple[int, int]:
    """Microseconds of all cores that a container may use in a period, and the period; zeros without a limit."""
    words = _read("cpu.max").split() or [_read(f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]  # v2, v1
    if len(words) != 2 or not all(word.isdigit() for word in words):  # "max", or -1
        return 0, 0
    return int(words[0]), int(words[1])


def _read(name: str) -> str:
    path = CGROUPS / name
    return path.read_text().strip() if path.is_file() else ""
