"""The formats ``aoti-fp16`` and ``aoti-bf16``: compiled by AOTInductor for a GPU, in 16-bit floats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainyard.formats.aoti import Aoti
from trainyard.formats.base import Precision, check_gpu

if TYPE_CHECKING:
    from trainyard.formats.source import Source


class AotiFp16(Aoti):
    """A compiled package in IEEE's 16-bit floats."""

    name = "aoti-fp16"
    file = "model.fp16.pt2"
    device = "gpu"
    precision: ClassVar[Precision] = "fp16"

    def make(self, source: Source, file: Path) -> None:
        """Compiles the model for this machine's GPU.

        Raises:
            Skip: there is no GPU or no C++ compiler, or the model can't be exported or compiled.
        """
        check_gpu()
        import torch

        from trainyard.formats.making.aoti_half import make

        make(source, file, torch.float16 if self.precision == "fp16" else torch.bfloat16)

    def needs(self, source: Source) -> list[str]:
        """Nothing of the processor."""
        return []


class AotiBf16(AotiFp16):
    """A compiled package in bfloat16, which has the range of 32-bit floats."""

    name = "aoti-bf16"
    file = "model.bf16.pt2"
    precision = "bf16"
