"""Torchvision's classifiers, by name: how each is built, its stages, its published weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import Encoder

from trainyard.base.errors import UsageError
from trainyard.models.image import ImageModelConfig, Parts
from trainyard.models.weights import State

# Auxiliary classifiers would add outputs in training; torchvision's weights of these two expect transform_input.
INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": True}
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
CONTAINERS = (nn.Sequential, nn.ModuleList, Encoder)
# DenseNet's published files name their layers in a way that torchvision translates when it loads them.
OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d\.)")


class TorchvisionConfig(ImageModelConfig):
    """A classifier of torchvision: VGG, DenseNet, MobileNet, EfficientNet, ConvNeXt, ViT, Swin, ..."""

    kind: Literal["torchvision"]
    """Family of the model."""
    name: str
    """As torchvision names it: `vgg16_bn`, `densenet121`, `mobilenet_v3_small`, `efficientnet_b0`, `convnext_tiny`,
    `vit_b_16`, `swin_t`, ..."""

    def known_names(self) -> list[str]:
        """What ``name`` may be."""
        return all_names()

    def assemble(self, size: int, classes: int) -> Parts:
        """See ``ImageModelConfig``."""
        network = build_network(self.name, size, classes)
        return Parts(network, network_stages(network))

    def published_weights(self) -> State:
        """Torchvision's; see ``ImageModelConfig``."""
        return published_weights(self.name)


def all_names() -> list[str]:
    """Names of all classifiers but MNASNet, whose weights load only with a version that safetensors don't hold."""
    return [name for name in models.list_models(module=models) if not name.startswith("mnasnet")]


def resnet_names() -> list[str]:
    """Names of the ResNets, with ResNeXt and Wide ResNet."""
    return [name for name in all_names() if models.get_model_builder(name).__module__ == "torchvision.models.resnet"]


def build_network(name: str, size: int, classes: int) -> nn.Module:
    """Builds a classifier with fresh weights.

    Raises:
        AssertionError, ValueError: it can't take images of ``size`` pixels.
    """
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        options = dict(INCEPTION)
    elif name.startswith("vit_"):
        options = {"image_size": size}
    elif name.startswith("maxvit"):
        options = {"input_size": (size, size)}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
    return network


def network_stages(network: nn.Module) -> list[nn.Module]:
    """The blocks from input to output; the last child, which holds the output layer, is the last."""
    *body, head = (child for child in network.children() if _has_parameters(child))
    return [*(block for child in body for block in _blocks(child)), head]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    # Exact types: a subclass of Sequential, such as a convolution with its norm, is one block.
    if type(module) in CONTAINERS:
        for child in module.children():
            yield from _blocks(child)
    elif _has_parameters(module):
        yield module


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def published_weights(name: str) -> State:
    """Torchvision's best weights, from its cache or the network.

    Raises:
        UsageError: they can't be downloaded.
    """
    weights = models.get_model_weights(name).DEFAULT
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except URLError as error:
        raise UsageError(
            f"the published weights of {name} can't be downloaded ({error.reason}): "
            f"put {weights.url} into {torch.hub.get_dir()}/checkpoints, or set model.pretrained=false"
        ) from error
    return {
        OLD_DENSENET_KEY.sub(r"\1\2", key): tensor for key, tensor in state.items() if not key.startswith(AUXILIARY)
    }
