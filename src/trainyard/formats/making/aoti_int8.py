"""Quantises a model by torchao's PT2E for x86, and has AOTInductor compile it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import Graph, GraphModule

from trainyard.formats.errors import Skip, first_line
from trainyard.formats.making.aoti import REFUSALS, check_compiler, compile_package, export, run_calibration
from trainyard.formats.making.quiet import quiet_exporter
from trainyard.formats.recipes import KERNELS, Recipe
from trainyard.formats.source import Source

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer


def make(source: Source, file: Path, recipe: Recipe) -> None:
    """Quantises the model with scales from the calibration, and compiles it.

    Raises:
        Skip: there is no C++ compiler, the processor isn't an x86, or the model can't be exported or compiled.
    """
    source.refuse_recurrent()
    check_compiler()
    if source.cpu.isa == "arm64":
        raise Skip("torchao's X86InductorQuantizer is for x86: export there, or use onnx-int8")
    compile_package(export(quantise(source, recipe), source, source.examples), source, file)


def quantise(source: Source, recipe: Recipe) -> GraphModule:
    """Gives the model's graph with its roundings written out, which the compiler makes int8 kernels of.

    Raises:
        Skip: the model can't be exported or quantised.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = export(source.graph, source, source.examples).module()
    assert isinstance(module, GraphModule)
    with quiet_exporter():
        try:
            _tell_calls_apart(module.graph)
            prepared = prepare_pt2e(module, _quantizer(source, recipe, module.graph))
            run_calibration(prepared, source)
            quantised: GraphModule = convert_pt2e(prepared)
        except REFUSALS as error:
            raise Skip(f"torchao can't quantise it: {first_line(error)}") from error
    return quantised


def _tell_calls_apart(graph: Graph) -> None:
    """Gives each further call of a module a name of its own.

    torchao finds layers by their module's name, and takes a module that is called twice, as a ResNet's block calls its
    ReLU, for one layer with two outputs.
    """
    calls: Counter[tuple[str, object]] = Counter()
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op != "call_function" or not stack:
            continue
        key, (name, kind) = list(stack.items())[-1]
        number = calls[name, node.target]
        calls[name, node.target] += 1
        if number:
            node.meta["nn_module_stack"] = {**stack, key: (f"{name}@again{number}", kind)}


def _quantizer(source: Source, recipe: Recipe, graph: Graph) -> X86InductorQuantizer:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(
        x86.get_default_x86_inductor_quantization_config(
            is_dynamic=not recipe.static, reduce_range=KERNELS[source.cpu.isa].reduce_range
        )
    )
    for name in _calls_of(recipe.exclude, graph):
        quantizer.set_module_name_qconfig(name, None)
    return quantizer


def _calls_of(modules: Sequence[str], graph: Graph) -> list[str]:
    """The names that all calls of these modules go by: ``layer@1`` is the second of ``layer``."""
    stacks = (node.meta.get("nn_module_stack") or {} for node in graph.nodes)
    names = dict.fromkeys(name for stack in stacks for name, _ in stack.values())
    return [name for name in names if name.partition("@")[0] in modules]
