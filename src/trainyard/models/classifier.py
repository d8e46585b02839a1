"""The one interface of all models: raw preprocessor outputs in, logits out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainyard.base.errors import UsageError


class Classifier(nn.Module, ABC):
    """A network with what must go around it (normalisation, picking the logits).

    Only ``network``'s weights are saved, under its own names: a text bundle is then a plain Hugging Face folder.

    Args:
        network: Gives the logits.
        stages: The network's parts from input to output, for layer-wise learning rates; the last holds the output layer
            as its last ``nn.Linear`` or ``nn.Conv2d``. Each parameter belongs to at most one stage; one in none counts
            to the first.
    """

    def __init__(self, network: nn.Module, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network = network
        # By name, because sharding (FSDP2) puts other parameters in the place of these.
        stage_of = {id(parameter): i for i, stage in enumerate(stages) for parameter in stage.parameters()}
        named = network.named_parameters(remove_duplicate=False)
        self._stage_of = {name: stage_of.get(id(parameter), 0) for name, parameter in named}
        self.stage_count = len(stages)
        self._frozen = False

    @abstractmethod
    def forward(self, *args: Tensor, **inputs: Tensor) -> Tensor:
        """Gives logits ``[batch, classes] float32`` for the preprocessor's inputs."""

    def stage_of(self, name: str) -> int:
        """Index of the stage that ``network``'s parameter of this name belongs to; the highest is the output's."""
        return self._stage_of.get(name, 0)

    def freeze_backbone(self) -> None:
        """Freezes all but the last stage. Frozen batch norms then keep their statistics in training mode, too."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(self.stage_of(name) == self.stage_count - 1)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; see ``freeze_backbone``."""
        super().train(mode)
        if self._frozen:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
                    module.eval()
        return self

    def output_layer(self) -> tuple[str, nn.Linear | nn.Conv2d]:
        """The layer that gives the logits, and its name within ``network``.

        Raises:
            UsageError: the last stage holds none.
        """
        layers = [
            (name, module)
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and self.stage_of(f"{name}.weight".removeprefix(".")) == self.stage_count - 1
        ]
        if not layers:
            raise UsageError(
                f"the last stage of {type(self.network).__name__} holds no nn.Linear or nn.Conv2d: "
                "let the stages of this model.kind end with the layer that gives the logits"
            )
        return layers[-1]

    def save_config(self, folder: Path, labels: Sequence[str]) -> None:
        """Writes the architecture's own config files (Hugging Face's ``config.json``), where it has any."""


class ImageClassifier(Classifier):
    """Normalises uint8 images inside the graph.

    Args:
        network: Maps ``[batch, 3, height, width] float32`` to logits.
        stages: See ``Classifier``.
        mean: Of each channel, in 0..1.
        std: Of each channel, in 0..1.
    """

    def __init__(
        self, network: nn.Module, stages: Sequence[nn.Module], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(network, stages)
        # Not persistent: they come from the config, and the weights file stays the network's own.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Gives logits for images ``[batch, 3, height, width]``, uint8 or float in 0..255."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        return cast(Tensor, self.network((images.to(mean.dtype) - mean) / std)).float()


class TextClassifier(Classifier):
    """Hands tokens to a network that maps ``input_ids`` and ``attention_mask`` to logits."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Gives logits for token ids and their mask, both ``[batch, length] int64``."""
        return cast(Tensor, self.network(input_ids, attention_mask)).float()


@torch.no_grad()
def fold_temperature(classifier: Classifier, temperature: float) -> None:
    """Divides the output layer by a fitted temperature (Guo et al. 2017), and with it the logits.

    The softmax of the logits is then calibrated, and nobody behind the weights needs to know the temperature.
    """
    _, layer = classifier.output_layer()
    layer.weight /= temperature
    if layer.bias is not None:
        layer.bias /= temperature
