"""The ResNets for CIFAR of He et al. 2015 (arXiv 1512.03385, section 4.2): ResNet-20 has 0.27 million parameters."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size, but for its stride."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters: the paper's option A, which it uses on CIFAR.

    Where the width doubles, the shortcut takes every second pixel and fills the new channels with zeros.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = channels_out // channels_in
        self.new_channels = channels_out - channels_in
        self.conv1 = conv3x3(channels_in, channels_out, self.stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[batch, channels_in, height, width]`` to ``[batch, channels_out, height/stride, width/stride]``."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return functional.relu(residual + x)


class CifarResNet(nn.Module):
    """A ResNet of ``6 n + 2`` layers: a convolution, three stages of ``n`` blocks, and the output layer.

    Args:
        layers: 20, 32, 44, 56 or any other ``6 n + 2``.
        classes: Size of the output.
    """

    def __init__(self, layers: int, classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(layers - 2, 6)
        assert rest == 0, f"{layers} layers aren't 6 n + 2"
        self.conv1 = conv3x3(3, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = self._stage(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = self._stage(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = self._stage(WIDTHS[1], WIDTHS[2], blocks)
        self.fc = nn.Linear(WIDTHS[2], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(channels_in, channels_out)
        return nn.Sequential(first, *(BasicBlock(channels_out, channels_out) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Gives logits ``[batch, classes]`` for normalised images ``[batch, 3, height, width] float32``."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return cast(Tensor, self.fc(x.mean(dim=(2, 3))))
