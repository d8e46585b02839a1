"""Quantises a model by ``torch.ao.quantization``, which is deprecated and still widely run, and traces it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainyard.formats.errors import Skip, first_line
from trainyard.formats.making.conv1d import as_linear, is_conv1d
from trainyard.formats.making.torchscript import copy_for_cpu, save_traced
from trainyard.formats.recipes import KERNELS, Kernels, Recipe
from trainyard.formats.source import Source

NETWORK = "classifier.network."
"""What the names of a network's modules begin with in the graph."""
BATCH_SIZE = 32


def make(source: Source, file: Path, recipe: Recipe) -> None:
    """Writes the quantised model. The file needs no setting where it is loaded, but see ``Kernels.needs``.

    Args:
        source: The model, which stays as it is.
        file: Where to.
        recipe: How. Of the static calibrators torch has ``minmax`` and ``histogram``.

    Raises:
        Skip: this torch can't quantise, or not this network.
    """
    kernels = KERNELS[source.cpu.isa]
    graph = copy_for_cpu(source)
    with _quiet(), _engine(kernels.engine):
        quantised = _static(graph, source, recipe, kernels) if recipe.static else _dynamic(graph, recipe)
        save_traced(quantised, source, file)


def _dynamic(graph: nn.Module, recipe: Recipe) -> nn.Module:
    """Weights of linear and recurrent layers in int8; each batch gives the scale of its activations."""
    quantization = _import_quantization()
    _replace_conv1d(graph)
    per_tensor = quantization.default_dynamic_qconfig  # recurrent layers know no other
    linear = quantization.per_channel_dynamic_qconfig if recipe.per_channel else per_tensor
    kinds = {nn.Linear: linear, nn.LSTM: per_tensor, nn.GRU: per_tensor}
    quantised: nn.Module = quantization.quantize_dynamic(graph, kinds | dict.fromkeys(recipe.exclude))
    return quantised


def _static(graph: nn.Module, source: Source, recipe: Recipe, kernels: Kernels) -> nn.Module:
    """Weights and activations of the network in int8, with scales from the calibration records."""
    quantization = _import_quantization()
    from torch.ao.quantization import quantize_fx

    mapping = _mapping(quantization, recipe, kernels)
    classifier: Any = graph.classifier
    try:
        # The example's shape doesn't matter: it is for networks that were traced otherwise.
        classifier.network = quantize_fx.prepare_fx(classifier.network, mapping, (torch.zeros(1),))
        _calibrate(graph, source)
        classifier.network = quantize_fx.convert_fx(classifier.network)
        _calibrate(graph, source, records=1)  # an operator without an int8 kernel fails here
    except Exception as error:  # of any type: torch.ao asserts, looks up and compares as it goes
        raise Skip(f"torch.ao.quantization can't quantise this network: {first_line(error)}") from error
    return graph


def _mapping(quantization: Any, recipe: Recipe, kernels: Kernels) -> Any:
    """Which module or function is quantised how; torch's own, but for ranges and weights."""
    observer = quantization.MinMaxObserver if recipe.calibrator == "minmax" else quantization.HistogramObserver
    # torch keeps a sum of two products within 16 bits by activations of 7 bits; its kernels want them unsigned.
    activation = observer.with_args(dtype=torch.quint8, quant_min=0, quant_max=127 if kernels.reduce_range else 255)
    per_channel, per_tensor = quantization.default_per_channel_weight_observer, quantization.default_weight_observer
    config = quantization.QConfig(activation=activation, weight=per_channel if recipe.per_channel else per_tensor)
    norm = quantization.QConfig(activation=activation, weight=quantization.default_placeholder_observer)
    mapping = quantization.get_default_qconfig_mapping(kernels.engine).set_global(config)
    for kind in (nn.LayerNorm, nn.functional.layer_norm):
        mapping.set_object_type(kind, norm)
    for name in recipe.exclude:
        mapping.set_module_name(name.removeprefix(NETWORK), None)
    return mapping


@torch.no_grad()
def _calibrate(graph: nn.Module, source: Source, records: int | None = None) -> None:
    examples = source.calibration[:records]
    for start in range(0, len(examples), BATCH_SIZE):
        graph(*source.tensors(source.batch(examples[start : start + BATCH_SIZE])))


def _replace_conv1d(graph: nn.Module) -> None:
    """GPT-2's ``Conv1D`` is a linear layer with its weight turned round."""
    for parent in list(graph.modules()):
        for name, child in parent.named_children():
            if is_conv1d(child):
                setattr(parent, name, as_linear(child))


def _import_quantization() -> Any:
    """``torch.ao.quantization``; untyped, because it is.

    Raises:
        Skip: this torch has none.
    """
    try:
        from torch.ao import quantization
    except ImportError as error:
        raise Skip(f"torch {torch.__version__} has no torch.ao.quantization any more: use onnx-int8") from error
    return quantization


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Packs weights for an engine. Loading packs them anew, for that of the machine."""
    if name not in torch.backends.quantized.supported_engines:
        raise Skip(f"torch {torch.__version__} has no int8 kernels for this processor (engine {name})")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides that quantised tensors are deprecated, and what the export would see in the answers if it mattered."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"torch\.ao\.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", r"torch\.quantize_per_tensor", UserWarning)
        warnings.filterwarnings("ignore", r"Currently, qnnpack incorrectly ignores reduce_range", UserWarning)
        warnings.filterwarnings("ignore", r"All inputs of this cat operator must share", UserWarning)
        yield
