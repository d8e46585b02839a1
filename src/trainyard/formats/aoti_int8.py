"""The format ``aoti-int8``: quantised by torchao's PT2E for x86, compiled by AOTInductor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.formats.aoti import Aoti
from trainyard.formats.base import Int8Format
from trainyard.formats.recipes import Recipe

if TYPE_CHECKING:
    from trainyard.formats.source import Source


class AotiInt8(Aoti, Int8Format):
    """A compiled package in 8-bit integers."""

    name = "aoti-int8"
    file = "model.int8.pt2"
    precision = "int8"
    baseline = "aoti"

    def recipes(self, source: Source) -> list[Recipe]:
        """The one calibrator that torchao's quantiser for x86 has; without the worst layers comes after it."""
        return [Recipe(calibrator="histogram")]

    def make(self, source: Source, file: Path, recipe: Recipe | None = None) -> None:
        """Quantises the model and compiles it."""
        from trainyard.formats.making.aoti_int8 import make

        make(source, file, recipe or self.recipes(source)[0])
