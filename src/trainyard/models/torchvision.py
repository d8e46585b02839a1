"""Any classifier of torchvision, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainyard.models.image import ImageModelConfig, Parts

if TYPE_CHECKING:
    from trainyard.models.weights import State


class TorchvisionConfig(ImageModelConfig):
    """A classifier of torchvision: VGG, DenseNet, MobileNet, EfficientNet, ConvNeXt, ViT, Swin, ..."""

    kind: Literal["torchvision"]
    """Family of the model."""
    name: str
    """As torchvision names it: `vgg16_bn`, `densenet121`, `mobilenet_v3_small`, `efficientnet_b0`, `convnext_tiny`,
    `vit_b_16`, `swin_t`, ..."""

    def known_names(self) -> list[str]:
        """What ``name`` may be."""
        from trainyard.models.torchvision_networks import all_names

        return all_names()

    def assemble(self, size: int, classes: int) -> Parts:
        """See ``ImageModelConfig``."""
        from trainyard.models.torchvision_networks import build_network, network_stages

        network = build_network(self.name, size, classes)
        return Parts(network, network_stages(network))

    def published_weights(self) -> State:
        """Torchvision's; see ``ImageModelConfig``."""
        from trainyard.models.torchvision_networks import published_weights

        return published_weights(self.name)
