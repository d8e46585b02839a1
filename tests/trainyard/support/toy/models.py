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
        return Parts(network := Cnn(classes), list(network.children()))


class Cnn(nn.Module):
    """Three convolutions with batch norm, the mean over the pixels, and an output layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return self.fc(functional.relu(self.bn3(self.conv3(x))).mean(dim=(2, 3)))
