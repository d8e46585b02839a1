"""What runs a model, whatever its format."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainyard.preprocess.preprocessor import Inputs


class Runtime(Protocol):
    """Runs a format."""

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        ...
