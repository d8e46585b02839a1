"""Translates a model to ONNX: one file with a dynamic batch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from trainyard.base.files import atomic_write
from trainyard.formats.errors import Skip, first_line
from trainyard.formats.making.quiet import quiet_exporter
from trainyard.formats.source import Source

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LOGITS = "logits"
"""Name of the output."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter tells which modules a node is from."""
LARGEST_FILE = 2 << 30
"""Protobuf's limit of one message."""


GRAPH = "graph.onnx"
"""The translation within a source's scratch folder."""


def write_once(source: Source, file: Path) -> None:
    """Writes what ``make`` does, which takes a while, at the first call alone where there is a folder to keep it in.

    Raises:
        Skip: the exporter can't translate the model.
    """
    if source.scratch is None:
        make(source, file)
        return
    kept = source.scratch / GRAPH
    if not kept.is_file():
        make(source, kept)
    shutil.copyfile(kept, file)


def make(source: Source, file: Path) -> None:
    """Exports the model; the same model gives the same bytes.

    Raises:
        Skip: the exporter can't translate the model.
    """
    source.refuse_recurrent()
    model = _translate(source)
    _strip(model)
    _name_dimensions(model.graph, source)
    if model.ByteSize() >= LARGEST_FILE:
        raise Skip(f"the model has {model.ByteSize() / 1e9:.1f} GB, and an ONNX file of one piece holds 2")
    onnx.checker.check_model(model, full_check=True)
    save(model, file)


def save(model: ModelProto, file: Path) -> None:
    """Writes a model as one file, the same model as the same bytes."""
    with atomic_write(file) as stream:
        stream.write(model.SerializeToString(deterministic=True))


def _translate(source: Source) -> ModelProto:
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                source.plain_graph(),
                source.examples,
                dynamo=True,
                dynamic_shapes=(source.dynamic_shapes,),
                input_names=list(source.names),
                output_names=[LOGITS],
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise Skip(f"torch.onnx.export can't translate it: {first_line(error)}") from error
    assert program is not None
    model: ModelProto = program.model_proto
    return model


def _strip(model: ModelProto) -> None:
    """Takes out stack traces, with the paths of this machine, and names each node by the module that it is from."""
    for node in model.graph.node:
        node.name = f"{_module_of(node)}/{node.name}"
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    # Shapes in between follow from the inputs'; the exporter's names of their sizes differ from run to run.
    del graph.value_info[:]


def _module_of(node: NodeProto) -> str:
    """The innermost module of a node, such as ``classifier.network.layer1.0.conv1``."""
    # A convolution that took in a batch norm says it is that; its weight's name tells better.
    for name in node.input:
        if name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    names = [name.strip(" '\"") for name in scopes.strip("[]").split(",")]
    return names[-2] if len(names) > 1 else ""  # the last is the operation's own


def _name_dimensions(graph: GraphProto, source: Source) -> None:
    """Gives a dimension the same name in all inputs, so that a reader sees that the batch is one."""
    names = source.preprocessor.dynamic_dimensions
    for entry in graph.input:
        for position, name in names.items():
            entry.type.tensor_type.shape.dim[position].dim_param = name
    [output] = graph.output
    output.type.tensor_type.shape.dim[0].dim_param = names[0]
