"""The onnx-int8 format: recipes show in the file, an answer stays its own, and embeddings shrink too."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trainyard.base.cpu import Cpu
from trainyard.formats.making import onnx as fp32_format
from trainyard.formats.making import onnx_int8 as format
from trainyard.formats.onnx import OnnxRuntime
from trainyard.formats.onnx_int8 import OnnxInt8
from trainyard.formats.recipes import Recipe
from trainyard.formats.source import Source
from trainyard.verify.batch_invariance import measure_invariance, moves

INT8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@pytest.fixture(scope="module")
def image_onnx(image_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    fp32_format.make(image_source, path)
    return path


@pytest.fixture(scope="module")
def text_onnx(text_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    fp32_format.make(text_source, path)
    return path


def on(source: Source, *flags: str) -> Source:
    return dataclasses.replace(source, cpu=Cpu("a processor", flags, 2))


def initializers(file: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
def test_images_get_nearly_the_same_answers(
    image_source: Source, image_onnx: Path, tmp_path: Path, calibrator: str
) -> None:
    format.make(image_source, image_onnx, tmp_path / "int8.onnx", Recipe(calibrator=calibrator))
    batch = image_source.batch(image_source.calibration[:64])
    answers, expected = (OnnxRuntime(file, threads=1).logits(batch) for file in (tmp_path / "int8.onnx", image_onnx))

    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert (answers != expected).any()
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * image_onnx.stat().st_size


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
def test_texts_get_nearly_the_same_answers(
    text_source: Source, text_onnx: Path, tmp_path: Path, calibrator: str
) -> None:
    format.make(text_source, text_onnx, tmp_path / "int8.onnx", Recipe(calibrator=calibrator))
    batch = text_source.batch(text_source.calibration[:64])
    answers, expected = (OnnxRuntime(file, threads=1).logits(batch) for file in (tmp_path / "int8.onnx", text_onnx))

    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95


def test_a_static_scale_keeps_an_answer_its_own_and_a_dynamic_one_does_not(
    text_source: Source, text_onnx: Path, tmp_path: Path
) -> None:
    moved = {}
    for static in (True, False):
        format.make(text_source, text_onnx, tmp_path / "int8.onnx", Recipe(static=static))
        run = OnnxRuntime(tmp_path / "int8.onnx", threads=1).logits
        moved[static] = moves(measure_invariance(run, text_source.calibration, text_source.bundle.preprocessor))

    assert moved == {True: False, False: True}


def test_the_same_file_and_records_give_the_same_bytes(image_source: Source, image_onnx: Path, tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        format.make(image_source, image_onnx, tmp_path / name, Recipe())

    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_excluded_modules_stay_in_floats(image_source: Source, image_onnx: Path, tmp_path: Path) -> None:
    name = "classifier.network.conv2"
    format.make(image_source, image_onnx, tmp_path / "int8.onnx", Recipe(exclude=(name,)))
    found = initializers(tmp_path / "int8.onnx")

    assert found[f"{name}.weight"].dtype == np.float32
    other = "classifier.network.conv3.weight"
    assert other not in found
    assert found[f"{other}_quantized"].dtype == np.int8


def test_without_vnni_weights_have_seven_bits(image_source: Source, image_onnx: Path, tmp_path: Path) -> None:
    largest = {}
    for flags in (("avx2",), ("avx2", "avx512f", "avx512_vnni")):
        format.make(on(image_source, *flags), image_onnx, tmp_path / "int8.onnx", Recipe())
        weights = [w for name, w in initializers(tmp_path / "int8.onnx").items() if name.endswith("weight_quantized")]
        largest[flags[-1]] = max(int(np.abs(w.astype(int)).max()) for w in weights)

    assert largest == {"avx2": 64, "avx512_vnni": 127}


def test_per_tensor_has_one_scale(image_source: Source, image_onnx: Path, tmp_path: Path) -> None:
    sizes = {}
    for per_channel in (True, False):
        format.make(image_source, image_onnx, tmp_path / "int8.onnx", Recipe(per_channel=per_channel))
        sizes[per_channel] = initializers(tmp_path / "int8.onnx")["classifier.network.conv1.weight_scale"].size

    assert sizes == {True: 16, False: 1}


def test_large_embeddings_are_bytes_with_a_scale_a_row(text_source: Source, text_onnx: Path, tmp_path: Path) -> None:
    format.make(text_source, text_onnx, tmp_path / "int8.onnx", Recipe())
    name = "classifier.network.bert.embeddings.word_embeddings.weight"
    table, found = initializers(text_onnx)[name], initializers(tmp_path / "int8.onnx")

    assert name not in found
    restored = found[f"{name}.int8"].astype(np.float32) * found[f"{name}.scale"]
    assert found[f"{name}.int8"].dtype == np.int8
    assert (np.abs(restored - table) <= np.abs(table).max(axis=1, keepdims=True) / 253).all()


def test_dynamic_is_the_last_resort_of_texts(text_source: Source, image_source: Source) -> None:
    assert [recipe.static for recipe in OnnxInt8().recipes(text_source)] == [True, True, True, False]
    assert all(recipe.static for recipe in OnnxInt8().recipes(image_source))
