"""A small network for images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from trainyard.models.image import ImageModelConfig, Parts


class CnnConfig(ImageModelConfig):
    kind: Literal["cnn"]
    """Family of the model."""
    name: str = "plain"
    """The only one."""

    def known_names(self) -> list[str]:
        return ["plain"]

    def assemble(self, size: int, classes: int) -> Parts:
        network = Cnn(classes)
        return Parts(network, list(network.children()))


class Cnn(nn.Module):
    """Three convolutions with batch norm, the mean over the pixels, and an output layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second, self.third = _block(3, 16, 1), _block(16, 32, 2), _block(32, 64, 1)
        self.fc = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        for block in (self.first, self.second, self.third):
            images = functional.relu(block(images))
        return self.fc(images.mean(dim=(2, 3)))


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))
