"""The formats for GPUs. What is theirs alone is tried on a GPU where there is one, and all else on the processor."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from tables import CPU, EXPORTED, GPU

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FormatName
from trainyard.base.errors import BundleError
from trainyard.formats.aoti import AotiRuntime
from trainyard.formats.errors import Skip
from trainyard.formats.making.aoti_half import make
from trainyard.formats.onnx import OnnxRuntime
from trainyard.formats.source import Source
from trainyard.formats.table import LIBRARY, exported_formats
from trainyard.heads.single_label import SingleLabel
from trainyard.preprocess.base import Inputs
from trainyard.verify import rank as ranking
from trainyard.verify.batch_invariance import (
    MAX_MOVE,
    MAX_MOVE_HALF,
    make_cases,
    max_move,
    measure_invariance,
    moves,
    sweep,
)
from trainyard.verify.examine import Examined
from trainyard.verify.export import Options, export
from trainyard.verify.gate import Gate, Verdict, judge
from trainyard.verify.int8_search import rank_layers
from trainyard.verify.rank import EAGER_ON_GPU, Outcome, rank, recommended

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def eager(source: Source):
    def run(inputs):
        with torch.inference_mode():
            return source.graph(*source.tensors(inputs)).numpy()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("model", ["image_source", "text_source"])
def test_a_package_in_16_bits_answers_nearly_as_eager(
    model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(model)
    file = tmp_path / "model.bf16.pt2"
    make(source, file, torch.bfloat16, "cpu")
    run = AotiRuntime(file, threads=1).logits
    found = sweep(run, make_cases(eager(source), source.calibration, source.bundle.preprocessor))
    inputs = source.batch(source.calibration)
    answers, expected = run(inputs), eager(source)(inputs)

    assert found.failures == ()
    assert 1e-4 < found.max_abs_diff < 0.2, "nothing was rounded, or too much"
    assert answers.dtype == np.float32
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.98
    assert not moves(measure_invariance(run, source.calibration[:16], source.bundle.preprocessor), MAX_MOVE_HALF)
    assert {parameter.dtype for parameter in source.graph.parameters()} == {torch.float32}, "the source is changed"


@pytest.mark.parametrize("format", GPU)
def test_without_a_gpu_they_are_skipped_before_any_work(
    format: FormatName, image_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [attempt] = LIBRARY[format].attempts(image_source, rank_layers)

    with pytest.raises(Skip, match="for a GPU, and torch finds none"):
        attempt.make(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_onnx_on_a_gpu_needs_its_own_onnxruntime(
    image_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    [attempt] = LIBRARY["onnx-cuda"].attempts(image_source, rank_layers)

    with pytest.raises(Skip, match="install onnxruntime-gpu"):
        attempt.make(tmp_path / "made")


@pytest.mark.parametrize(("there", "made"), [(False, CPU), (True, EXPORTED)])
def test_a_machine_with_a_gpu_makes_them_unasked(there: bool, made: object) -> None:
    assert exported_formats(with_gpu=there) == made


def test_the_cuda_provider_gets_its_device_and_all_of_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, content: bytes, options: object, providers: object, disabled_optimizers: object) -> None:
            asked.append(providers)
            raise RuntimeError("that is all")

    asked: list[object] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])

    with pytest.raises(BundleError, match="that is all"):
        (tmp_path / "model.onnx").touch()
        OnnxRuntime(tmp_path / "model.onnx", "cuda:1")
    assert asked == [[("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"})]]


def test_16_bits_may_move_further_and_int8_not() -> None:
    assert {format: max_move(format) for format in EXPORTED if max_move(format) != MAX_MOVE} == {
        "aoti-fp16": MAX_MOVE_HALF,
        "aoti-bf16": MAX_MOVE_HALF,
    }


class Waits:
    """A runtime that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def logits(self, inputs: Inputs) -> np.ndarray:
        time.sleep(self.seconds)
        return np.zeros((1, 2), np.float32)


def test_they_are_timed_against_eager_on_the_gpu_and_never_recommended_for_processors(
    image_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def open_runtime(format: FormatName, bundle: object, device: str) -> Waits:
        opened.append((format, device))
        return Waits(0.004)

    monkeypatch.setattr(ranking, "open_runtime", open_runtime)
    monkeypatch.setattr(ranking, "SECONDS", 0.5)
    seconds: dict[FormatName, float] = {"onnx": 0.02, "onnx-cuda": 0.002, "aoti-bf16": 0.008}
    outcomes = [
        Outcome(format, tmp_path / format, Examined(Waits(wait), Verdict(), ())) for format, wait in seconds.items()
    ]
    for one in outcomes:
        assert one.file is not None
        one.file.touch()
    labels = np.array([0, 1])
    logits = np.array([[1, 0], [0, 1]], np.float32)
    against = SimpleNamespace(
        runtime=Waits(0.04), bundle=SimpleNamespace(labels=("a", "b"), path=image_source.bundle.path),
        logits=logits, judged=lambda format, found: judge(
            SingleLabel(), format, found, logits, labels, ("a", "b"), Gate()
        ),
    )  # fmt: skip

    rows = {row.name: row for row in rank(outcomes, against, {})}  # type: ignore[arg-type]

    assert opened == [("eager", "cuda")]
    assert set(rows) == {"eager", *seconds}, f"{EAGER_ON_GPU} is no format"
    assert rows["onnx-cuda"].status == "passed"
    assert rows["aoti-bf16"].status == "no_gain"
    assert rows["onnx-cuda"].speedup is not None
    assert rows["onnx-cuda"].speedup < 8, "it would be 20 times as fast as eager on the processor"
    assert recommended(list(rows.values())) == "onnx"


@on_gpu
@pytest.mark.slow
def test_an_export_on_a_gpu(image_run: Path) -> None:
    made = export(Bundle.open(image_run), Options(("aoti-fp16", "aoti-bf16")), [])

    statuses = {row.name: row.status for row in made.facts.formats[1:]}
    assert statuses.keys() == {"aoti-fp16", "aoti-bf16"}
    assert set(statuses.values()) <= {"passed", "no_gain"}, made.facts.formats
