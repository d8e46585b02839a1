"""The format ``eager``: the model itself, in PyTorch; what all others are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.formats.base import Format, Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from trainyard.formats.source import Source
    from trainyard.preprocess.base import Inputs


class Eager(Format):
    """The model in a bundle, which needs no file beside it."""

    name = "eager"
    file = ""
    device = "any"

    def make(self, source: Source, file: Path) -> None:
        """Isn't called: the bundle holds it."""
        raise AssertionError("eager is never made")

    def open(self, file: Path, device: str | None = None, threads: int | None = None) -> Runtime:
        """Isn't called: see ``open_model``."""
        raise AssertionError("eager is no file")

    def open_model(
        self, restore: Callable[[], nn.Module], device: str | None = None, threads: int | None = None
    ) -> Runtime:
        """Loads the model.

        Args:
            restore: Builds it with its weights, in evaluation mode on the CPU; the caller's, as only he knows the
                models.
            device: A torch device; by default a GPU if there is one.
            threads: Of one call, and of all that torch does in this process.
        """
        return EagerRuntime(restore, device, threads)


class EagerRuntime:
    """Runs a model in PyTorch.

    Args:
        restore: Builds it with its weights, in evaluation mode on the CPU.
        device: A torch device; by default a GPU if there is one.
        threads: Of one call, and of all that torch does in this process.
    """

    def __init__(self, restore: Callable[[], nn.Module], device: str | None = None, threads: int | None = None) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classifier = restore().to(self.device)

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
            logits: NDArray[np.float32] = self.classifier(**tensors).float().cpu().numpy()
        return logits
