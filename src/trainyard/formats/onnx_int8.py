"""The format ``onnx-int8``: that of ``onnx``, quantised by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.formats.base import Int8Format
from trainyard.formats.onnx import Onnx
from trainyard.formats.recipes import Recipe

if TYPE_CHECKING:
    from trainyard.formats.source import Source


class OnnxInt8(Int8Format, Onnx):
    """ONNX in 8-bit integers, with scales in the file (QDQ)."""

    name = "onnx-int8"
    file = "model.int8.onnx"
    device = "cpu"
    baseline = "onnx"

    def recipes(self, source: Source) -> list[Recipe]:
        """Static scales by each calibrator and, of texts, dynamic ones."""
        static = [Recipe(calibrator="minmax"), Recipe(calibrator="percentile"), Recipe(calibrator="entropy")]
        # A dynamic scale is taken over the whole batch, so that neighbours move an answer: the last resort. It is for
        # matrix products; ONNX Runtime advises static ones for convolutions, and images' networks are made of those.
        return [*static, Recipe(static=False)] if source.is_text else static

    def make(self, source: Source, file: Path, recipe: Recipe | None = None) -> None:
        """Quantises the file of ``onnx``; the same model and records give the same bytes."""
        from trainyard.formats.making import onnx, onnx_int8

        fp32 = file.with_suffix(".fp32.onnx")
        onnx.write_once(source, fp32)
        onnx_int8.make(source, fp32, file, recipe or self.recipes(source)[0])
        fp32.unlink()
