"""ResNets: torchvision's, with a stem for small images, and those for CIFAR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData
from trainyard.models.image import ImageModelConfig, Parts

if TYPE_CHECKING:
    from torch import nn

    from trainyard.models.weights import State

CIFAR_LAYERS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56}
SMALL_IMAGE = 64
"""Up to this many pixels, the standard stem, which shrinks an image to a quarter, throws too much away."""


class ResNetConfig(ImageModelConfig):
    """A ResNet: `resnet18` to `resnet152`, ResNeXt and Wide ResNet, or `resnet20` to `resnet56` for CIFAR."""

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
            self.published_weights()  # says that there are none

    def known_names(self) -> list[str]:
        """What ``name`` may be."""
        from trainyard.models.torchvision_networks import resnet_names

        return [*CIFAR_LAYERS, *resnet_names()]

    def replaceable_layers(self) -> tuple[str, ...]:
        """The first convolution differs between the two stems."""
        return () if self.name in CIFAR_LAYERS else ("conv1",)

    def assemble(self, size: int, classes: int) -> Parts:
        """See ``ImageModelConfig``."""
        network = self._cifar_network(classes) if self.name in CIFAR_LAYERS else self._network(size, classes)
        # A stage as the ResNet paper has them; the stem's norm belongs to none and so counts to the first.
        stages = [child for name, child in network.named_children() if name.startswith(("conv1", "layer", "fc"))]
        return Parts(network, stages)

    def _cifar_network(self, classes: int) -> nn.Module:
        from trainyard.models.resnet_cifar import CifarResNet

        if self.stem == "standard":
            raise UsageError(f"model.name={self.name} has a small stem only: leave model.stem out")
        return CifarResNet(CIFAR_LAYERS[self.name], classes)

    def _network(self, size: int, classes: int) -> nn.Module:
        from trainyard.models.torchvision_networks import build_network, use_small_stem

        network = build_network(self.name, size, classes)
        if self.stem == "small" or (self.stem == "auto" and size <= SMALL_IMAGE):
            use_small_stem(network)
        return network

    def published_weights(self) -> State:
        """Torchvision's; the nets for CIFAR have none."""
        if self.name in CIFAR_LAYERS:
            return super().published_weights()
        from trainyard.models.torchvision_networks import published_weights

        return published_weights(self.name)
