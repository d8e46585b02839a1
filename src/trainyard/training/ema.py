"""An exponential moving average of the weights: a smoother model at no cost in accuracy (Polyak & Juditsky 1992)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Averages the weights and the floating-point buffers (running statistics) of a network.

    Args:
        network: The network that is trained.
        decay: Share of the average that stays at each step. Early steps use less, so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        # Shares memory with the network: asking for its state dict at each step costs more than the averaging does.
        self._live = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
        self.average = {name: tensor.clone() for name, tensor in self._live.items()}

    def update(self, step: int) -> None:
        """Moves the average towards the weights after optimiser step ``step`` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self._live.values()), 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the average into the network for the length of the block."""
        backup = {name: tensor.clone() for name, tensor in self._live.items()}
        self._copy(self.average)
        try:
            yield
        finally:
            self._copy(backup)

    def load(self, average: dict[str, Tensor]) -> None:
        """Sets the average to a checkpoint's."""
        for name, tensor in average.items():
            self.average[name].copy_(tensor)

    @torch.no_grad()
    def _copy(self, source: dict[str, Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(source[name])
