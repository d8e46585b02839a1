"""The format ``onnx``: one file with a dynamic batch, which ONNX Runtime runs without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainyard.base.errors import BundleError
from trainyard.formats.base import Device, Format, Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainyard.formats.source import Source
    from trainyard.preprocess.base import Inputs

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Optimisations that ONNX Runtime's CPU kernels make slower: of a MiniLM in int8, these were a fifth of the time."""
FATAL_ONLY = 4
"""ONNX Runtime's log level: an error is raised, and needn't be printed too."""
CPU = "CPUExecutionProvider"
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class Onnx(Format):
    """ONNX in 32-bit floats."""

    name = "onnx"
    file = "model.onnx"
    package = "onnxruntime"
    device: ClassVar[Device] = "any"

    def make(self, source: Source, file: Path) -> None:
        """Translates the model; the same model gives the same bytes."""
        from trainyard.formats.making.onnx import write_once

        write_once(source, file)

    def open(self, file: Path, device: str | None = None, threads: int | None = None) -> Runtime:
        """Loads the file, without torch."""
        return OnnxRuntime(file, device, threads)


class OnnxRuntime:
    """Runs an ONNX file, which is whole in itself: weights that lie elsewhere are refused.

    Args:
        file: The model.
        device: ``cuda``, or ``cuda:1``, runs it with the CUDA provider; by default the CPU does.
        threads: Of one call; by default one for each core.

    Raises:
        BundleError: the file can't be loaded, names a file of weights, or there is no such device.
    """

    def __init__(self, file: Path, device: str | None = None, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = FATAL_ONLY
        # An ONNX file can name others as its weights, found from its folder or, of a model in memory, from the working
        # directory. No file was sealed for that, and none is found here: the null device holds no files.
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, os.devnull)
        provider, settings = _provider(device)
        if provider not in onnxruntime.get_available_providers():
            raise BundleError(f"this onnxruntime has no {provider}: install onnxruntime-gpu, or use the CPU")
        if provider != CPU:
            onnxruntime.preload_dlls()  # those of the packages from NVIDIA, which no search path names
        try:
            self._session = onnxruntime.InferenceSession(
                file.read_bytes(), options, providers=[(provider, settings)], disabled_optimizers=SLOW_FUSIONS
            )
        except Exception as error:  # its errors have no base of their own
            first_line = str(error).partition("\n")[0]
            raise BundleError(f"{file} can't be loaded ({first_line}): export again") from error
        if provider not in self._session.get_providers():  # it takes the CPU then, and says so in its log alone
            raise BundleError(f"{device} can't be used here: check the GPU's driver with nvidia-smi, or use the CPU")
        self._session.disable_fallback()  # to another provider, for which alone it would keep the file's bytes
        self._session._model_bytes = None
        self._names = [entry.name for entry in self._session.get_inputs()]

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        import numpy as np

        [logits] = self._session.run(None, {name: inputs[name] for name in self._names})
        return np.asarray(logits, dtype=np.float32)


def _provider(device: str | None) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's name for a torch device, and its settings."""
    kind, _, index = (device or "cpu").partition(":")
    if kind != "cuda":
        return CPU, {}
    # TF32 has 10 bits of mantissa: not the 32-bit floats that the format is scored as.
    return "CUDAExecutionProvider", {"device_id": index or "0", "use_tf32": "0"}
