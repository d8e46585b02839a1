"""Runs a model with ONNX Runtime, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainyard.core.preprocess import Inputs
from trainyard.errors import BundleError

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Optimisations that ONNX Runtime's CPU kernels make slower: of a MiniLM in int8, these were a fifth of the time."""
ERRORS_ONLY = 3
"""ONNX Runtime's log level; below it, it tells of its own optimisations."""


class OnnxRuntime:
    """Runs an ONNX file.

    Args:
        file: The model.
        device: ``cuda`` runs it with the CUDA provider; by default the CPU does.
        threads: Of one call; by default one for each core.

    Raises:
        BundleError: the file can't be loaded, or there is no such device.
    """

    def __init__(self, file: Path, device: str | None = None, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = ERRORS_ONLY
        provider = "CUDAExecutionProvider" if device and device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise BundleError(f"this onnxruntime has no {provider}: install onnxruntime-gpu, or use the CPU")
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=[provider], disabled_optimizers=SLOW_FUSIONS
            )
        except Exception as error:  # its errors have no base of their own
            raise BundleError(f"{file} can't be loaded ({error}): export again") from error
        self._names = [entry.name for entry in self._session.get_inputs()]

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        [logits] = self._session.run(None, {name: inputs[name] for name in self._names})
        return np.asarray(logits, dtype=np.float32)
