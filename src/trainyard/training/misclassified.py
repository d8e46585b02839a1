"""Wrongly classified validation examples, surest first, as pictures or texts in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.data.records import Records
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import as_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from trainyard.training.reports import Validation

SHOWN = 16
SIDE = 128
"""Side of a picture in pixels."""


class WrongExamples:
    """Shows the mistakes that the model is surest of: often they are mistakes of the labels.

    Args:
        records: The validation split.
        labels: Names of the classes.
    """

    def __init__(self, records: Records, labels: Sequence[str]) -> None:
        self.records = records
        self.labels = labels

    def __call__(self, writer: SummaryWriter, validation: Validation) -> None:
        """Adds them at the validation's step, as images or as text."""
        probabilities, predicted = validation.logits.softmax(dim=1).max(dim=1)
        truth = torch.from_numpy(self.records.labels[: len(predicted)])
        wrong = (predicted != truth).nonzero().flatten()
        for number, i in enumerate(wrong[probabilities[wrong].argsort(descending=True)][:SHOWN].tolist()):
            probability = float(probabilities[i])
            caption = f"{self.labels[int(truth[i])]} taken for {self.labels[int(predicted[i])]} ({probability:.2f})"
            tag, item = f"wrong/{number}", self.records.items[i]
            # TensorBoard shows pictures and texts by calls of their own.
            if isinstance(item, bytes | Path):
                writer.add_image(tag, _picture(item), validation.step, dataformats="HWC")
                writer.add_text(tag, caption, validation.step)
            else:
                writer.add_text(tag, f"{caption}: {as_text(item)}", validation.step)


def _picture(item: bytes | Path) -> NDArray[np.uint8]:
    return ImagePreprocessor(size=SIDE, resize=SIDE).encode(item)
