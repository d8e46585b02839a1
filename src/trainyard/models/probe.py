"""Trying a network out without computing anything."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call


@torch.no_grad()
def run_on_meta(network: nn.Module, shape: tuple[int, ...]) -> torch.Size:
    """The shape of the output for an input of ``shape``, by a run on the meta device, which knows shapes alone.

    Raises:
        RuntimeError: the network can't take this shape.
    """
    # Each module's own, once: of a module that is there twice, the second would be left on the meta device.
    state = {
        f"{prefix}.{name}".removeprefix("."): tensor.to("meta")
        for prefix, module in network.named_modules()
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    }
    training = network.training
    network.eval()
    try:
        output: torch.Tensor = functional_call(network, state, torch.empty(shape, device="meta"), tie_weights=False)
    finally:
        network.train(training)
    return output.shape
