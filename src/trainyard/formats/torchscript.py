"""The format ``torchscript``: the model traced and frozen, as TorchServe deployments run it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainyard.base.errors import BundleError
from trainyard.formats.base import Device, Format, Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainyard.formats.source import Source
    from trainyard.preprocess.base import Inputs

INPUT_NAMES = "inputs.json"
"""The names of the inputs, in their order: a file within the archive."""


class TorchScript(Format):
    """TorchScript in 32-bit floats."""

    name = "torchscript"
    file = "model.torchscript.pt"
    device: ClassVar[Device] = "any"
    deprecated = (
        "TorchScript is deprecated since torch 2.11, and torch.ao.quantization with it; these formats are for servers "
        "that run them already. onnx-int8 and aoti-int8 are what replaces them."
    )

    def make(self, source: Source, file: Path) -> None:
        """Traces the model; the file takes any batch, and texts of any length and padding."""
        from trainyard.formats.making.torchscript import make

        make(source, file)

    def open(self, file: Path, device: str | None = None, threads: int | None = None) -> Runtime:
        """Loads the file, which needs torch and none of the model's own code."""
        return TorchScriptRuntime(file, device, threads)


class TorchScriptRuntime:
    """Runs a TorchScript file.

    Args:
        file: The model.
        device: A torch device; by default the CPU.
        threads: Of one call, and of all that torch does in this process.

    Raises:
        BundleError: the file can't be loaded.
    """

    def __init__(self, file: Path, device: str | None = None, threads: int | None = None) -> None:
        import json

        import torch

        if threads:
            torch.set_num_threads(threads)
        extra = {INPUT_NAMES: ""}
        self.device = torch.device(device or "cpu")
        try:
            with ignore_deprecation():
                self._model = torch.jit.load(  # type: ignore[no-untyped-call]
                    str(file), map_location=self.device, _extra_files=extra
                )
            self._names: list[str] = json.loads(extra[INPUT_NAMES])
        except (RuntimeError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            raise BundleError(f"{file} can't be loaded ({first_line}): export again") from error

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        import torch

        with torch.inference_mode():
            tensors = [torch.from_numpy(inputs[name]).to(self.device) for name in self._names]
            logits: NDArray[np.float32] = self._model(*tensors).cpu().numpy()
        return logits


def ignore_deprecation() -> warnings.catch_warnings[None]:
    """Hides that TorchScript is deprecated since torch 2.11, which the export says once."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)
