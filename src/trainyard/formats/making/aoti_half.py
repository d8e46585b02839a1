"""Compiles a model in 16-bit floats."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from trainyard.formats.making.aoti import check_compiler, compile_package, export
from trainyard.formats.source import Graph, Source


class HalfGraph(Graph):
    """A graph whose products are in 16-bit floats; norms, softmax and the logits stay in 32-bit ones, as autocast does.

    Args:
        graph: The model in 32-bit floats, on any device.
        precision: ``float16`` or ``bfloat16``.
    """

    def __init__(self, graph: Graph, precision: torch.dtype) -> None:
        super().__init__(graph.classifier, graph.names)
        self._precision = precision

    def forward(self, *inputs: Tensor) -> Tensor:
        """Gives logits ``[batch, classes] float32``."""
        with torch.autocast(inputs[0].device.type, self._precision):
            return super().forward(*inputs).float()


def make(source: Source, file: Path, precision: torch.dtype, device: str = "cuda") -> None:
    """Compiles the model in 16-bit floats, for the GPU or, which tests do, for the processor.

    Raises:
        Skip: there is no C++ compiler, or the model can't be exported or compiled.
    """
    source.refuse_recurrent()
    check_compiler()
    graph = HalfGraph(copy.deepcopy(source.graph), precision).to(device).eval()
    examples = tuple(tensor.to(device) for tensor in source.examples)
    compile_package(export(graph, source, examples), source, file)
