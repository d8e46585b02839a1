"""GPT-2's ``Conv1D``, which is a linear layer with its weight turned round."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' ``Conv1D``, which GPT-2 has for linear layers. Doesn't import transformers."""
    return type(module).__module__ == "transformers.pytorch_utils" and type(module).__name__ == "Conv1D"


def as_linear(conv1d: nn.Module) -> nn.Linear:
    """The linear layer that does what a ``Conv1D`` does."""
    weight, bias = cast(Tensor, conv1d.weight), cast(Tensor, conv1d.bias)
    linear = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
    linear.weight = nn.Parameter(weight.detach().t().contiguous())
    linear.bias = nn.Parameter(bias.detach())
    return linear.train(conv1d.training)
