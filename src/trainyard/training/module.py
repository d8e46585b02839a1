"""The one LightningModule: loss and optimiser of every classifier, whatever its modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from trainyard.config.experiment import OptimConfig
from trainyard.models.classifier import Classifier
from trainyard.training.augment import Augmentation, Mixing
from trainyard.training.optim import build_optimizer

if TYPE_CHECKING:
    from trainyard.data.loader import Batch


class ClassifierModule(lightning.LightningModule):
    """Cross entropy over a classifier's logits.

    Args:
        classifier: What is trained.
        optim: Optimiser, label smoothing.
        class_weights: Weight of each class in the loss, ``[classes] float32``.
        augmentation: What is done to training images; ``None`` for texts.
        mixing: Mixup and CutMix; ``None`` for texts.
    """

    def __init__(
        self,
        classifier: Classifier,
        optim: OptimConfig,
        class_weights: Tensor | None = None,
        augmentation: Augmentation | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.optim = optim
        self.augmentation = augmentation
        self.mixing = mixing if mixing is not None and mixing.active else None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Gives logits ``[batch, classes] float32``."""
        logits: Tensor = self.classifier(**inputs)
        return logits.float()

    def training_step(self, batch: Batch, epoch: int) -> Tensor:
        """The mean loss of a batch, augmented as ``(seed, epoch, example id)`` says."""
        inputs, labels = batch.inputs, batch.labels
        if self.augmentation is None:
            return self._loss(self(**inputs), labels)
        example_ids = batch.indices.numpy()
        draws = self.augmentation.draws(example_ids, epoch).to(labels.device, non_blocking=True)
        images = self.augmentation(inputs["images"], draws)
        if self.mixing is None:
            return self._loss(self(images=images), labels)
        return self._mixed_loss(images, labels, example_ids, epoch)

    def validation_step(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits without gradients; scoring needs those of the whole split at once."""
        return cast(Tensor, self(**inputs))

    def configure_optimizers(self) -> Optimizer:
        """The optimiser over the trainable parameters; the loop sets the learning rate of each step."""
        return build_optimizer(self.classifier, self.optim, self.device)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = cast("Tensor | None", self.class_weights)
        return functional.cross_entropy(logits, labels, weight=weights, label_smoothing=self.optim.label_smoothing)

    def _mixed_loss(self, images: Tensor, labels: Tensor, example_ids: np.ndarray, epoch: int) -> Tensor:
        assert self.mixing is not None
        mixture = self.mixing(images, labels, example_ids, epoch)
        classes = torch.arange(len(labels), device=labels.device)
        logits = self(images=mixture.images)
        # Cross entropy takes a distribution over the classes as its target: the two labels by their shares.
        target = torch.zeros_like(logits)
        target[classes, labels] += mixture.shares
        target[classes, mixture.partners] += 1 - mixture.shares
        return self._loss(logits, target)
