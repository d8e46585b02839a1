"""Check of the GPUs: what the driver sees against what torch can use."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings

from trainyard.doctor.checks import Check

QUERY = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
TIMEOUT = 60
"""Seconds; the driver of a large machine takes its time when no process holds it."""


def check_gpu() -> Check:
    """GPUs with memory and driver. None is well: training then runs on the CPU."""
    try:
        gpus = _gpus_of_driver() or _gpus_of_torch()
    except (OSError, subprocess.SubprocessError) as error:
        fix = "reboot after a driver update, or install the NVIDIA driver again"
        return Check("gpu", "warning", f"nvidia-smi fails: {_reason(error)}", fix)
    if not gpus:
        return Check("gpu", "ok", f"none; training runs on the CPU ({os.cpu_count()} cores)")
    problem = _why_torch_has_none()
    if problem is not None:
        detail, fix = problem
        return Check("gpu", "warning", f"{'; '.join(gpus)}, but {detail}", fix)
    return Check("gpu", "ok", "; ".join(gpus))


def _gpus_of_driver() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    answer = subprocess.run([command, *QUERY], capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
    rows = [line.split(", ") for line in answer.splitlines()]
    return [f"{row[0]} ({row[1]}, driver {row[2]})" for row in rows if len(row) == 3]


def _reason(error: Exception) -> str:
    """nvidia-smi complains on stdout."""
    said = getattr(error, "stdout", None) or getattr(error, "stderr", None)
    return " ".join(str(said or error).split())


def _gpus_of_torch() -> list[str]:
    """For machines without nvidia-smi: AMD's GPUs, lean containers."""
    try:
        import torch
    except (ImportError, OSError):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    properties = [torch.cuda.get_device_properties(i) for i in range(count)]
    return [f"{one.name} ({one.total_memory / 2**20:.0f} MiB)" for one in properties]


def _why_torch_has_none() -> tuple[str, str] | None:
    """Reason and fix when torch can't use the GPUs that there are; ``None`` when it can."""
    try:
        import torch
    except (ImportError, OSError):
        return "torch can't be imported", "run scripts/setup.sh"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a CPU build", "go back to the locked build: TORCH_INDEX= scripts/setup.sh"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides them", "unset CUDA_VISIBLE_DEVICES, unless that is what you want"
    reason = f": {' '.join(str(said[0].message).split())}" if said else ""
    return f"torch can't use them{reason}", f"install a driver that supports CUDA {torch.version.cuda}"
