"""The onnx format: one clean file that takes any batch and length, and is the same wherever it is made."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trainyard.formats.errors import Skip
from trainyard.formats.making import onnx as format
from trainyard.formats.onnx import OnnxRuntime
from trainyard.formats.source import Graph, Source
from trainyard.verify.batch_invariance import make_cases, measure_invariance, sweep


def eager(source: Source):
    def run(inputs):
        with torch.inference_mode():
            return source.graph(*source.tensors(inputs)).numpy()

    return run


def dimensions(model: onnx.ModelProto) -> dict[str, list[str | int]]:
    entries = [*model.graph.input, *model.graph.output]
    return {entry.name: [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim] for entry in entries}


@pytest.fixture(scope="module", params=["image_source", "text_source"])
def source(request: pytest.FixtureRequest) -> Source:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def file(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    format.make(source, path)
    return path


def test_every_shape_gets_the_answer_of_eager(source: Source, file: Path) -> None:
    run = OnnxRuntime(file, threads=1).logits
    found = sweep(run, make_cases(eager(source), source.calibration, source.bundle.preprocessor))

    assert found.failures == ()
    assert found.max_abs_diff <= 1e-4


def test_an_answer_is_its_own_in_any_batch(source: Source, file: Path) -> None:
    found = measure_invariance(OnnxRuntime(file, threads=1).logits, source.calibration, source.bundle.preprocessor)

    assert max(found.neighbours, found.padding) <= 1e-5


def test_a_dimension_has_one_name_in_all_inputs(source: Source, file: Path) -> None:
    found = dimensions(onnx.load(file))

    names = ["batch", "length"] if source.is_text else ["batch", 3, 8, 8]
    assert {name: found[name] for name in source.names} == dict.fromkeys(source.names, names)
    assert found["logits"] == ["batch", len(source.bundle.labels)]


def test_images_go_in_as_bytes(image_source: Source, tmp_path: Path) -> None:
    format.make(image_source, tmp_path / "model.onnx")
    [entry] = onnx.load(tmp_path / "model.onnx").graph.input

    assert entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_file_is_whole_and_tells_nothing_of_the_machine(source: Source, file: Path) -> None:
    content = file.read_bytes()

    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    assert not any(tensor.external_data for tensor in onnx.load(file).graph.initializer)
    for word in (b"site-packages", b".py", b'File "', str(Path.cwd()).encode()):
        assert word not in content


def test_nodes_are_named_by_their_modules(image_source: Source, tmp_path: Path) -> None:
    format.make(image_source, tmp_path / "model.onnx")
    convolutions = [n.name for n in onnx.load(tmp_path / "model.onnx").graph.node if n.op_type == "Conv"]

    modules = {name for name, module in image_source.graph.named_modules() if isinstance(module, nn.Conv2d)}
    assert {name.partition("/")[0] for name in convolutions} == modules


def test_the_same_model_gives_the_same_bytes(source: Source, file: Path, tmp_path: Path) -> None:
    format.make(source, tmp_path / "again.onnx")

    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.LSTM(3, 4)


def with_classifier(source: Source, classifier: nn.Module) -> Source:
    graph = copy.deepcopy(source.graph)
    graph.classifier = classifier
    return dataclasses.replace(source, graph=graph)


def test_a_recurrent_net_is_skipped_for_what_export_would_do_to_it(text_source: Source, tmp_path: Path) -> None:
    with pytest.raises(Skip, match="unrolls recurrent layers"):
        format.make(with_classifier(text_source, Recurrent()), tmp_path / "model.onnx")


class Moody(nn.Module):
    """Python control flow over what is in the image."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.network = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) * (2 if images.float().mean().item() > 100 else 1)


def test_control_flow_over_the_inputs_is_skipped_with_the_evidence(image_source: Source, tmp_path: Path) -> None:
    source = with_classifier(image_source, Moody(image_source.graph.classifier))
    with pytest.raises(Skip, match=r"torch\.onnx\.export can't translate it: .+"):
        format.make(source, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_left_as_it_was(source: Source, file: Path) -> None:
    assert isinstance(source.graph, Graph)
    implementation = getattr(getattr(source.graph.classifier.network, "config", None), "_attn_implementation", "sdpa")
    assert implementation == "sdpa"
    assert np.isfinite(eager(source)(source.batch(source.calibration[:2]))).all()
