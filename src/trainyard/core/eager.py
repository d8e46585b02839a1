"""The reference runtime: the model itself, in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainyard.core.bundle import WEIGHTS, Bundle, BundleFacts
from trainyard.core.preprocess import Inputs, Preprocessor
from trainyard.errors import BundleError

if TYPE_CHECKING:
    from trainyard.models.classifier import Classifier


class EagerRuntime:
    """Runs a bundle's model in PyTorch.

    Args:
        bundle: The verified bundle.
        device: A torch device; by default a GPU if there is one.
        threads: Of one call, and of all that torch does in this process.
    """

    def __init__(self, bundle: Bundle, device: str | None = None, threads: int | None = None) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classifier = load_classifier(bundle.path, bundle.facts, bundle.preprocessor).to(self.device)

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in inputs.items()}
            logits: NDArray[np.float32] = self.classifier(**tensors).float().cpu().numpy()
        return logits


def load_classifier(folder: Path, facts: BundleFacts, preprocessor: Preprocessor) -> Classifier:
    """Builds the bundle's model with its weights, in evaluation mode on the CPU.

    Raises:
        BundleError: the weights don't fit the model's config.
    """
    from safetensors.torch import load_file

    from trainyard.models import parse_model
    from trainyard.models.base import Task

    config = parse_model(facts.model)
    classifier = config.restore(Task(tuple(facts.labels), preprocessor), folder)
    try:
        classifier.network.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise BundleError(f"{folder}: {WEIGHTS} doesn't fit the model's config; use the original") from error
    return classifier.eval()
