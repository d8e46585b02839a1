"""What runs a model, one file per runtime; each is imported when a rung of it is opened, and its packages with it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainyard.core.bundle import Bundle
from trainyard.core.preprocess import Inputs
from trainyard.core.rungs import Rung, is_gpu


class Runtime(Protocol):
    """Runs a rung."""

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        ...


def open_runtime(
    rung: Rung, bundle: Bundle, file: Path | None = None, device: str | None = None, threads: int | None = None
) -> Runtime:
    """Loads a rung.

    Args:
        rung: Which.
        bundle: The bundle that it is of; all there is to ``eager``.
        file: The rung's file in an export.
        device: A torch device; by default a GPU for what is made for one, and for ``eager`` if there is one.
        threads: Of one call; by default the library's own number.

    Raises:
        ModuleNotFoundError: the rung's packages aren't installed.
        BundleError: the file can't be loaded.
    """
    if rung == "eager":
        from trainyard.core.eager import EagerRuntime

        return EagerRuntime(bundle, device, threads)
    assert file is not None, f"{rung} is a file"
    if is_gpu(rung):
        device = device or "cuda"
    if rung.startswith("onnx"):
        from trainyard.core.onnx import OnnxRuntime

        return OnnxRuntime(file, device, threads)
    if rung.startswith("torchscript"):
        from trainyard.core.torchscript import TorchScriptRuntime

        return TorchScriptRuntime(file, device, threads)
    from trainyard.core.aoti import AotiRuntime

    return AotiRuntime(file, device, threads)
