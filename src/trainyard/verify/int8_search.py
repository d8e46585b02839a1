"""Which layers suffer most from int8: those that a recipe leaves in floats first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from trainyard.formats.making.conv1d import is_conv1d
from trainyard.formats.source import EXAMPLES, Source
from trainyard.preprocess.base import Encoded

BUDGET_FLOPS = 5e12
"""Operations that a ranking may take: a minute or two on one core. Counted, not timed, so that a ranking is the same
on every machine."""

Range = tuple[float, float]


@torch.no_grad()
def rank_layers(source: Source, records: int = 32) -> list[str]:
    """Names, within the graph, of the layers with a quantisable weight; the most harmful first.

    One layer after another has its weight (int8, symmetric, per output channel) and its input (uint8, per tensor, over
    the range seen) rounded as int8 would round them. Its harm is the mean squared change of the logits.

    Args:
        source: The model, which stays as it is.
        records: Most calibration records to look at; fewer in large models, see ``BUDGET_FLOPS``.
    """
    layers = quantisable_layers(source.graph)
    inputs = source.tensors(source.batch(_affordable(source, records, len(layers))))
    ranges = _observe(source, layers, inputs)
    logits = source.graph(*inputs)
    harm = {name: _harm(source, layer, ranges.get(name), inputs, logits) for name, layer in layers.items()}
    return sorted(harm, key=lambda name: harm[name], reverse=True)


def quantisable_layers(graph: nn.Module) -> dict[str, nn.Module]:
    """Linear layers and convolutions by their names; recurrent layers aren't among them."""
    return {
        name: module
        for name, module in graph.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) or is_conv1d(module)
    }


def _affordable(source: Source, records: int, layers: int) -> list[Encoded]:
    examples = list(source.calibration[:records])
    with FlopCounterMode(display=False) as counter:
        source.graph(*source.examples)
    each = counter.get_total_flops() / EXAMPLES
    count = int(BUDGET_FLOPS / max(each * layers, 1))
    return examples[: max(count, EXAMPLES)]


def _observe(source: Source, layers: dict[str, nn.Module], inputs: tuple[Tensor, ...]) -> dict[str, Range]:
    """The least and greatest value in each layer's input, zero among them; of those that are called."""
    ranges: dict[str, Range] = {}

    def observer(name: str) -> Any:
        def observe(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = (min(low, args[0].min().item()), max(high, args[0].max().item()))

        return observe

    with _removed([layer.register_forward_pre_hook(observer(name)) for name, layer in layers.items()]):
        source.graph(*inputs)
    return ranges


def _harm(source: Source, layer: nn.Module, seen: Range | None, inputs: tuple[Tensor, ...], logits: Tensor) -> float:
    """``seen`` is ``None`` for a layer that isn't called, because others use its weight: that alone is rounded."""

    def round_input(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert seen is not None
        return (_rounded_activation(args[0], seen), *args[1:])

    weight = cast(nn.Parameter, layer.weight)
    original = weight.data
    with _removed([] if seen is None else [layer.register_forward_pre_hook(round_input)]):
        weight.data = _rounded_weight(original, axis=1 if is_conv1d(layer) else 0)
        try:
            changed = source.graph(*inputs)
        finally:
            weight.data = original
    return float((changed - logits).square().mean())


def _rounded_weight(weight: Tensor, axis: int) -> Tensor:
    others = [i for i in range(weight.dim()) if i != axis]
    scale = weight.abs().amax(dim=others).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -127, 127)


def _rounded_activation(x: Tensor, seen: Range) -> Tensor:
    low, high = seen
    if low == high:
        return x
    scale = (high - low) / 255
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)


@contextmanager
def _removed(handles: list[RemovableHandle]) -> Iterator[None]:
    """Removes hooks afterwards, whatever happened."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
