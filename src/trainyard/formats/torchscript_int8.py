"""The format ``torchscript-int8``: quantised by ``torch.ao.quantization``, which is deprecated and still widely run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.formats.base import Int8Format
from trainyard.formats.recipes import Recipe
from trainyard.formats.torchscript import TorchScript

if TYPE_CHECKING:
    from trainyard.formats.source import Source


class TorchScriptInt8(Int8Format, TorchScript):
    """TorchScript in 8-bit integers."""

    name = "torchscript-int8"
    file = "model.int8.torchscript.pt"
    device = "cpu"
    baseline = "torchscript"

    def recipes(self, source: Source) -> list[Recipe]:
        """Static scales for images, dynamic ones for texts."""
        # Static scales take a graph, which torch can't trace of transformers' control flow; dynamic ones swap single
        # layers, but know no convolutions.
        if source.is_text:
            return [Recipe(static=False)]
        return [Recipe(calibrator="minmax"), Recipe(calibrator="histogram")]

    def make(self, source: Source, file: Path, recipe: Recipe | None = None) -> None:
        """Quantises the model and traces it."""
        from trainyard.formats.making.torchscript_int8 import make

        make(source, file, recipe or self.recipes(source)[0])
