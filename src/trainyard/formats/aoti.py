"""The format ``aoti``: compiled ahead of time by AOTInductor into a package that torch loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.base.errors import BundleError
from trainyard.formats.base import Format, Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainyard.formats.source import Source
    from trainyard.preprocess.base import Inputs

INPUT_NAMES = "input_names"
"""The names of the inputs, in their order: an entry of the package's metadata."""


class Aoti(Format):
    """A compiled package in 32-bit floats."""

    name = "aoti"
    file = "model.pt2"

    def make(self, source: Source, file: Path) -> None:
        """Compiles the model for this machine's processor, which takes a C++ compiler."""
        from trainyard.formats.making.aoti import make

        make(source, file)

    def open(self, file: Path, device: str | None = None, threads: int | None = None) -> Runtime:
        """Loads the package, which needs torch, and neither a compiler nor the model's own code."""
        return AotiRuntime(file, device, threads)

    def needs(self, source: Source) -> list[str]:
        """All flags of this processor: it is compiled for what that has."""
        return list(source.cpu.flags)


class AotiRuntime:
    """Runs a ``.pt2`` package.

    Args:
        file: The package, compiled for this kind of processor.
        device: The device that it was compiled for; it can't be moved to another.
        threads: Of one call, and of all that torch does in this process.

    Raises:
        BundleError: the file can't be loaded.
    """

    def __init__(self, file: Path, device: str | None = None, threads: int | None = None) -> None:
        import torch
        from torch._inductor import aoti_load_package

        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device or "cpu")
        try:
            index = -1 if self.device.index is None else self.device.index
            self._model = aoti_load_package(str(file), device_index=index)
            self._names: list[str] = json.loads(self._model.get_metadata()[INPUT_NAMES])
        except (RuntimeError, ValueError, KeyError) as error:
            first_line = str(error).partition("\n")[0]
            raise BundleError(f"{file} can't be loaded ({first_line}): export again") from error

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        import torch

        with torch.inference_mode():
            logits: NDArray[np.float32] = (
                self._model(*[torch.from_numpy(inputs[name]).to(self.device) for name in self._names]).cpu().numpy()
            )
        return logits
