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
    state = {name: tensor.to("meta") for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    training = network.training
    network.eval()
    try:
        output: torch.Tensor = functional_call(network, state, (torch.empty(shape, device="meta"),))
    finally:
        network.train(training)
    return output.shape
