"""The format ``onnx-cuda``: the file of ``onnx``, run by the CUDA provider of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.formats.base import check_gpu
from trainyard.formats.errors import Skip
from trainyard.formats.onnx import Onnx

if TYPE_CHECKING:
    from trainyard.formats.source import Source


class OnnxCuda(Onnx):
    """ONNX in 32-bit floats, for GPUs."""

    name = "onnx-cuda"
    device = "gpu"

    def make(self, source: Source, file: Path) -> None:
        """Translates the model.

        Raises:
            Skip: there is no GPU, or the installed ONNX Runtime isn't the one that runs on GPUs.
        """
        import onnxruntime

        check_gpu()
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise Skip("this onnxruntime has no CUDA provider: install onnxruntime-gpu in its place")
        super().make(source, file)
