"""What every format is made from: the model as one graph, examples of its inputs, and the calibration records."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from trainyard.artifacts.bundle import Bundle
from trainyard.base.cpu import Cpu
from trainyard.formats.errors import Skip
from trainyard.preprocess.base import Encoded, Inputs, Preprocessor

EXAMPLES = 4
"""Examples that a graph is traced with: more than one, because tracers take a dimension of one for fixed."""


class Graph(nn.Module):
    """A classifier that takes its inputs in order and returns a plain logits tensor, as exporters want it.

    Args:
        classifier: In evaluation mode, on the CPU.
        names: Of its inputs, in the order in which the graph takes them.
    """

    def __init__(self, classifier: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.classifier = classifier
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Gives logits ``[batch, classes] float32``."""
        return cast(Tensor, self.classifier(**dict(zip(self.names, inputs, strict=True))))


@dataclass(frozen=True)
class Source:
    """A model that is to be exported.

    Attributes:
        graph: The model. A format that has to change it makes a copy first.
        names: Of the inputs, in the graph's order.
        calibration: Encoded training examples; see ``batch``.
        bundle: Where it is from.
        cpu: The processor that int8 recipes are chosen for.
        scratch: A folder for what several formats are made from; without one, each makes its own.
    """

    graph: Graph
    names: tuple[str, ...]
    calibration: Sequence[Encoded]
    bundle: Bundle
    cpu: Cpu
    scratch: Path | None = None

    @property
    def preprocessor(self) -> Preprocessor:
        """The bundle's."""
        return self.bundle.preprocessor

    def batch(self, encoded: Sequence[Encoded]) -> Inputs:
        """Joins encoded items into the model's inputs."""
        return self.preprocessor.collate(encoded)

    def tensors(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Inputs as the graph takes them."""
        return tuple(torch.from_numpy(inputs[name]) for name in self.names)

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        return self.tensors(self.batch(self.calibration[:EXAMPLES]))

    @property
    def dynamic_shapes(self) -> tuple[dict[int, object], ...]:
        """Of each input, the dimensions that may have any size, as ``torch.export`` takes them."""
        dimensions = self.preprocessor.dynamic_dimensions
        return tuple(dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC) for _ in self.names)

    def plain_graph(self) -> Graph:
        """A copy whose attention is written out in matrix products and a softmax, where it can be.

        The fused attention of PyTorch is exported as the same, and around it checks for rows that are masked as a
        whole, which a text has none of.
        """
        graph = copy.deepcopy(self.graph)
        choose = getattr(cast(nn.Module, graph.classifier.network), "set_attn_implementation", None)
        if callable(choose):  # transformers' models have it
            choose("eager")
        return graph

    @property
    def is_text(self) -> bool:
        """Whether the network is over tokens, for which other int8 recipes are good than for one over pixels."""
        return self.preprocessor.kind == "text"

    @property
    def is_transformer(self) -> bool:
        """Whether it has norms over the features of each token, which are computed anew for every example."""
        return any(isinstance(module, nn.LayerNorm) for module in self.graph.modules())

    @property
    def is_recurrent(self) -> bool:
        """Whether there are recurrent layers, which ``torch.export`` would unroll to one length."""
        return any(isinstance(module, nn.RNNBase) for module in self.graph.modules())

    def refuse_recurrent(self) -> None:
        """For formats that are made with ``torch.export``.

        Raises:
            Skip: there are recurrent layers.
        """
        if self.is_recurrent:
            raise Skip(
                "torch.export unrolls recurrent layers to the length of its example, so longer texts would be refused"
            )
