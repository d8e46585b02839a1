"""ONNX files are whole in themselves: one that names another file as its weights isn't loaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trainyard.base.errors import BundleError
from trainyard.formats.onnx import OnnxRuntime

WEIGHTS = np.arange(16, dtype=np.float32).reshape(4, 4)


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def write_model(path: Path, weights: TensorProto, as_constant: bool = False) -> Path:
    """A model of one matrix product."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if as_constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weights))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], [] if as_constant else [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_whole_file_is_run(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.onnx", onnx.numpy_helper.from_array(WEIGHTS, "w"))

    logits = OnnxRuntime(file, threads=1).logits({"x": np.eye(4, dtype=np.float32)[1:3]})

    assert logits.dtype == np.float32
    assert logits.tolist() == WEIGHTS[1:3].tolist()


@pytest.mark.parametrize("as_constant", [False, True])
@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "../../w.bin", "absolute", "/dev/zero",
                                      "*/_ORT_MEM_ADDR_/*"])  # fmt: skip
def test_weights_elsewhere_are_refused_wherever_they_lie(
    location: str, as_constant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent, tmp_path):
        (place / "w.bin").write_bytes(WEIGHTS.tobytes())
    file = write_model(
        folder / "model.onnx", external(str(tmp_path / "w.bin") if location == "absolute" else location), as_constant
    )

    for working_directory in (folder, tmp_path):
        monkeypatch.chdir(working_directory)
        with pytest.raises(BundleError, match=r"model\.onnx can't be loaded .*: export again"):
            OnnxRuntime(Path(os.path.relpath(file)), threads=1)
    assert not capfd.readouterr().err, "the sentence is enough"


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(BundleError, match=r"model\.onnx can't be loaded"):
        OnnxRuntime(tmp_path / "model.onnx")


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no CUDAExecutionProvider: install onnxruntime-gpu, or use the CPU"):
        OnnxRuntime(tmp_path / "model.onnx", device="cuda:0")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_can_not_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself goes on with the CPU, where the driver or a library is missing."""
    file = write_model(tmp_path / "model.onnx", onnx.numpy_helper.from_array(WEIGHTS, "w"))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)

    with pytest.raises(BundleError, match="cuda:0 can't be used here: .* or use the CPU"):
        OnnxRuntime(file, device="cuda:0")
