"""Quantises an ONNX file by ONNX Runtime, with scales in the file (QDQ)."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from trainyard.formats.making.onnx import save
from trainyard.formats.recipes import KERNELS, Calibrator, Recipe
from trainyard.formats.source import Source
from trainyard.preprocess.base import Inputs

METHODS: dict[Calibrator, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
PRODUCTS = ["MatMul", "Gemm"]
"""What is quantised of a transformer; its norms and softmax are better off in floats."""
MIN_TABLE_ROWS = 1000
"""A smaller embedding table isn't worth the rounding."""
HISTOGRAM_RECORDS = 32
"""Records for a histogram, of which ONNX Runtime keeps every activation in memory."""


def make(source: Source, fp32: Path, file: Path, recipe: Recipe) -> None:
    """Quantises the file of the ``onnx`` format; the same file and records give the same bytes."""
    options = {
        "per_channel": recipe.per_channel,
        "reduce_range": KERNELS[source.cpu.isa].reduce_range,
        "weight_type": QuantType.QInt8,
        "nodes_to_exclude": _nodes_of(fp32, recipe.exclude),
        "op_types_to_quantize": ["Conv", *PRODUCTS] if source.is_transformer else None,
    }
    with _quiet():
        if recipe.static:
            _quantize_static(source, fp32, file, recipe, options)
        else:
            quantize_dynamic(fp32, file, extra_options={"MatMulConstBOnly": True}, **options)
    model = onnx.load(file)
    _quantise_embeddings(model.graph)
    save(model, file)


def _quantise_embeddings(graph: GraphProto) -> None:
    """Keeps large embedding tables as int8 with a scale for each row, which a lookup multiplies its row by.

    They are most of a small transformer's weights. ONNX Runtime would give a table one scale, and round the rows that
    were looked up once more, to that of all of them.
    """
    tables = {tensor.name: tensor for tensor in graph.initializer if _is_table(tensor)}
    nodes = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            nodes += _lookup(node, graph, numpy_helper.to_array(tables[node.input[0]]))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _is_table(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.dims[0] >= MIN_TABLE_ROWS


def _lookup(node: NodeProto, graph: GraphProto, table: NDArray[np.float32]) -> list[NodeProto]:
    """The nodes that take the place of a lookup in a table ``[rows, width] float32``."""
    name, ids, output = node.input[0], node.input[1], node.output[0]
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
    graph.initializer.extend([
        numpy_helper.from_array(np.rint(table / scale).astype(np.int8), f"{name}.int8"),
        numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"),
    ])  # fmt: skip
    return [
        helper.make_node("Gather", [f"{name}.int8", ids], [f"{output}.int8"], f"{node.name}.int8"),
        helper.make_node("Gather", [f"{name}.scale", ids], [f"{output}.scale"], f"{node.name}.scale"),
        helper.make_node("Cast", [f"{output}.int8"], [f"{output}.cast"], f"{node.name}.cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.cast", f"{output}.scale"], [output], node.name),
    ]


def _quantize_static(source: Source, fp32: Path, file: Path, recipe: Recipe, options: dict[str, object]) -> None:
    signed = KERNELS[source.cpu.isa].signed_activations
    # A product's result goes on to a norm or an addition in floats: rounding it first would cost accuracy and time.
    floats_out = {"OpTypesToExcludeOutputQuantization": PRODUCTS, "MatMulConstBOnly": True}
    quantize_static(
        fp32,
        file,
        _Reader(source, recipe.calibrator),
        quant_format=QuantFormat.QDQ,
        calibrate_method=METHODS[recipe.calibrator],
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        extra_options=floats_out if source.is_transformer else {},
        **options,
    )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out the calibration records in batches."""

    def __init__(self, source: Source, calibrator: Calibrator) -> None:
        records = source.calibration
        if calibrator != "minmax":  # ONNX Runtime stacks the activations of all batches for a histogram
            records = source.preprocessor.of_one_shape(records[:HISTOGRAM_RECORDS])
        size = min(source.preprocessor.calibration_batch, len(records))
        starts = range(0, len(records) - size + 1, size)
        self._batches = iter(source.batch(records[start : start + size]) for start in starts)

    def get_next(self) -> Inputs | None:
        return next(self._batches, None)


def _nodes_of(file: Path, modules: Sequence[str]) -> list[str]:
    """The nodes that come from these modules; see ``formats.making.onnx``, which names nodes by their module."""
    names = [node.name for node in onnx.load(file, load_external_data=False).graph.node]
    return [name for name in names if name.partition("/")[0] in modules]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides ONNX Runtime's progress, and its advice to prepare the file by a tool whose work is done already."""
    root = logging.getLogger()
    root.addFilter(_is_ours)
    try:
        with open(os.devnull, "w", encoding="utf-8") as sink, redirect_stdout(sink), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
