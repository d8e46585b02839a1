"""The rungs of the ladder: the formats that a model is exported to, from the reference on."""

from __future__ import annotations

import difflib
from typing import TypeAlias

from trainyard.base.errors import UsageError

Rung: TypeAlias = str

RUNGS: tuple[Rung, ...] = (
    "eager",
    "torchscript",
    "torchscript-int8",
    "onnx",
    "onnx-int8",
    "aoti",
    "aoti-int8",
    "onnx-cuda",
    "aoti-fp16",
    "aoti-bf16",
)
EXPORTED: tuple[Rung, ...] = RUNGS[1:]
"""All but the reference, which is the bundle itself."""
GPU_RUNGS: tuple[Rung, ...] = ("onnx-cuda", "aoti-fp16", "aoti-bf16")
"""Those that run on a GPU, and can only be made where there is one."""
CPU_RUNGS: tuple[Rung, ...] = tuple(rung for rung in EXPORTED if rung not in GPU_RUNGS)
FILES: dict[Rung, str] = {
    "torchscript": "model.torchscript.pt",
    "torchscript-int8": "model.int8.torchscript.pt",
    "onnx": "model.onnx",
    "onnx-int8": "model.int8.onnx",
    "aoti": "model.pt2",
    "aoti-int8": "model.int8.pt2",
    "onnx-cuda": "model.onnx",  # the same graph, run by another provider
    "aoti-fp16": "model.fp16.pt2",
    "aoti-bf16": "model.bf16.pt2",
}
"""The file of each rung within an export."""


def is_int8(rung: Rung) -> bool:
    """Whether a rung computes in 8-bit integers."""
    return rung.endswith("-int8")


def is_fp32(rung: Rung) -> bool:
    """Whether a rung computes in 32-bit floats, as the model itself does."""
    return not rung.endswith(("-int8", "-fp16", "-bf16"))


def is_gpu(rung: Rung) -> bool:
    """Whether a rung is for GPUs."""
    return rung in GPU_RUNGS


def fp32_of(rung: Rung) -> Rung:
    """The rung of the same runtime in 32-bit floats; of such a one, itself."""
    return next(one for one in RUNGS if one == rung.removesuffix("-int8"))


def parse_rungs(words: str, known: tuple[Rung, ...] = EXPORTED) -> tuple[Rung, ...]:
    """The rungs of a list such as ``onnx,onnx-int8``, in the order of the ladder.

    Raises:
        UsageError: one isn't known; names the nearest.
    """
    names = {word.strip() for word in words.split(",") if word.strip()}
    for name in sorted(names - set(known)):
        [nearest] = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise UsageError(f"--formats: there is no format {name}; the nearest is {nearest}")
    if not names:
        raise UsageError(f"--formats names no format: it is one or more of {','.join(known)}")
    return tuple(rung for rung in known if rung in names)
