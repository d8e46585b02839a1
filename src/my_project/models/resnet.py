"""ResNets: small ones made for CIFAR, and torchvision's, for which there are published weights."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData
from trainyard.models.image import ImageModelConfig, Parts
from trainyard.models.torchvision import build_network, published_weights, resnet_names
from trainyard.models.weights import State

CIFAR_LAYERS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
WIDTHS = (16, 32, 64)
SMALL_IMAGE = 64
"""Up to this many pixels, the standard stem, which shrinks an image to a quarter, throws too much away."""


class ResNetConfig(ImageModelConfig):
    """A ResNet: `resnet18` to `resnet152`, ResNeXt and Wide ResNet, or `resnet20` to `resnet56` for CIFAR."""

    # By this word a config, and every bundle that you ever trained, finds this class: think twice before you change it.
    kind: Literal["resnet"]
    """Family of the model."""
    name: str = "resnet18"
    """`resnet18`, `resnet34`, `resnet50`, `resnet101`, `resnet152`, `resnext50_32x4d`, `wide_resnet50_2`, ..., or
    `resnet20`, `resnet32`, `resnet44`, `resnet56` (He et al. 2015, for CIFAR)."""
    stem: Literal["auto", "small", "standard"] = "auto"
    """First layers: `standard` shrinks the image to a quarter of its side, `small` keeps it; `auto` is `small` up to 64
    pixels."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        super().check(data)
        if self.pretrained is True and self.name in CIFAR_LAYERS:
            self.published_weights()  # says that there are none, before the data is read and not after it

    def known_names(self) -> list[str]:
        """What ``name`` may be."""
        return [*CIFAR_LAYERS, *resnet_names()]

    def replaceable_layers(self) -> tuple[str, ...]:
        """The first convolution differs between the two stems."""
        return () if self.name in CIFAR_LAYERS else ("conv1",)

    def assemble(self, size: int, classes: int) -> Parts:
        """See ``ImageModelConfig``."""
        if self.name not in CIFAR_LAYERS:
            network = build_network(self.name, size, classes)
            if self.stem == "small" or (self.stem == "auto" and size <= SMALL_IMAGE):
                use_small_stem(network)
        elif self.stem == "standard":
            raise UsageError(f"model.name={self.name} has a small stem only: leave model.stem out")
        else:
            network = CifarResNet(CIFAR_LAYERS[self.name], classes)
        # A stage as the ResNet paper has them; the stem's norm belongs to none and so counts to the first.
        stages = [child for name, child in network.named_children() if name.startswith(("conv1", "layer", "fc"))]
        return Parts(network, stages)

    def published_weights(self) -> State:
        """Torchvision's; the nets for CIFAR have none."""
        return super().published_weights() if self.name in CIFAR_LAYERS else published_weights(self.name)


def use_small_stem(network: nn.Module) -> None:
    """Lets a ResNet see small images in full: a 3 x 3 stem of stride 1 and no pooling, as is usual on CIFAR."""
    stem = conv3x3(3, 64)
    # As torchvision draws its own: torch's default is made for other nonlinearities.
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1, network.maxpool = stem, nn.Identity()


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size, but for its stride."""
    # Without a bias, since a batch norm follows, whose own does the same.
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters: the paper's option A, which it uses on CIFAR.

    Where the width doubles, the shortcut takes every second pixel and fills the new channels with zeros.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride = channels_out // channels_in  # an image of half the side has room for twice the channels
        self.new_channels = channels_out - channels_in
        self.conv1 = conv3x3(channels_in, channels_out, self.stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[batch, channels_in, height, width]`` to ``[batch, channels_out, height/stride, width/stride]``."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        # An `if` over what is fixed when the network is built is no trouble for an export; one over `x` would be.
        if self.new_channels:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return functional.relu(residual + x)


class CifarResNet(nn.Module):
    """The ResNets of He et al. 2015 (arXiv 1512.03385, section 4.2); ResNet-20 has 0.27 million parameters.

    ``6 n + 2`` layers: a convolution, three stages of ``n`` blocks, and the output layer.

    Args:
        layers: 20, 32, 44, 56 or any other ``6 n + 2``.
        classes: Size of the output.
    """

    def __init__(self, layers: int, classes: int) -> None:
        super().__init__()
        blocks, rest = divmod(layers - 2, 6)
        assert rest == 0, f"{layers} layers aren't 6 n + 2"
        # Torchvision's names, so that `assemble` finds the stages of both in one way.
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
        # The mean over whatever is left of the image: so any size of image will do.
        return cast(Tensor, self.fc(x.mean(dim=(2, 3))))
