"""Muon: each matrix moves along its orthogonalised momentum (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: tuned to bring singular values close to 1 in few steps (Jordan et al.)."""
ADAM_RMS = 0.2
"""Root mean square of AdamW's updates; at this size, one rate suits both (Liu et al. 2025, arXiv 2502.16982)."""


def is_matrix(parameter: Tensor) -> bool:
    """Whether there is something to orthogonalise: the filters of a convolution are the rows of a matrix."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) > 1


class Muon(AdamW):
    """Muon for the parameter groups marked ``orthogonal``; AdamW for the others, at the same rate.

    Args:
        groups: Parameter groups as torch takes them, each with a ``bool`` under ``orthogonal``.
        lr: Learning rate where a group has none.
        momentum: Share of the momentum that stays at each step.
    """

    def __init__(self, groups: list[dict[str, object]], lr: float, momentum: float) -> None:
        # Not the fused AdamW: with that, a GradScaler leaves it to the kernel to skip steps, and Muon has none.
        super().__init__(groups, lr=lr, foreach=True)
        for group in self.param_groups:
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates all parameters that have a gradient."""
        assert closure is None, "the loop has the gradients ready"
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    self._step_along_orthogonal(parameter, group["lr"], group["weight_decay"], group["momentum"])
        return cast("float | None", super().step())

    def _step_along_orthogonal(self, parameter: nn.Parameter, lr: float, decay: float, momentum: float) -> None:
        if parameter.grad is None:
            return
        state = self.state[parameter]
        if not state:
            # AdamW looks for a step when it loads a state.
            state.update(momentum=torch.zeros_like(parameter), step=torch.tensor(0.0))
        average = state["momentum"]
        average.lerp_(parameter.grad, 1 - momentum)
        update = orthogonalize(parameter.grad.lerp(average, momentum).flatten(1))
        parameter.mul_(1 - lr * decay)
        parameter.add_(update.view_as(parameter), alpha=-lr * ADAM_RMS * max(update.shape) ** 0.5)
        parameter.grad = None  # AdamW leaves it alone then


def orthogonalize(matrix: Tensor) -> Tensor:
    """Brings the singular values of ``[rows, columns]`` close to 1 (0.7 to 1.2) and keeps its singular vectors."""
    a, b, c = COEFFICIENTS
    tall = len(matrix) > matrix.shape[1]
    x: Tensor = matrix.t() if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.t()
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.t() if tall else x
