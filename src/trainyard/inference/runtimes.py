"""What runs a model, one file per runtime; each is imported when a rung of it is opened, and its packages with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.artifacts.bundle import Bundle
from trainyard.formats.names import Rung, is_gpu
from trainyard.formats.runtime import Runtime

if TYPE_CHECKING:
    from torch import nn


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
        from trainyard.formats.eager_runtime import EagerRuntime

        def restore() -> nn.Module:
            from trainyard.models.restore import open_classifier

            return open_classifier(bundle)

        return EagerRuntime(restore, device, threads)
    assert file is not None, f"{rung} is a file"
    if is_gpu(rung):
        device = device or "cuda"
    if rung.startswith("onnx"):
        from trainyard.formats.onnx_runtime import OnnxRuntime

        return OnnxRuntime(file, device, threads)
    if rung.startswith("torchscript"):
        from trainyard.formats.torchscript_runtime import TorchScriptRuntime

        return TorchScriptRuntime(file, device, threads)
    from trainyard.formats.aoti_runtime import AotiRuntime

    return AotiRuntime(file, device, threads)
