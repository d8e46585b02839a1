"""The formats of exporters on all kinds of networks: right in every shape, or skipped with the evidence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from trainyard.base.cpu import this_cpu
from trainyard.formats.aoti_int8 import AotiInt8
from trainyard.formats.errors import Skip
from trainyard.formats.making import aoti, aoti_int8, onnx, onnx_int8
from trainyard.formats.recipes import Recipe
from trainyard.formats.source import Source
from trainyard.inference.runtimes import open_runtime
from trainyard.verify.batch_invariance import make_cases, measure_invariance, moves, sweep

pytestmark = pytest.mark.slow

NETWORKS = {
    "resnet18": 32,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "vit_b_16": 32,
    "swin_t": 64,
    "convnext_tiny": 64,
}
"""Of torchvision, with the pixels of an image's side."""
TRANSFORMERS = ["bert", "distilbert", "albert", "deberta", "xlnet", "gpt2", "modernbert"]
RECURRENT = ["lstm", "gru"]
ALL = [*NETWORKS, *TRANSFORMERS, *RECURRENT]
UNROLLED = "torch.export unrolls recurrent layers"
EXPECTED_SKIPS = {
    ("xlnet", "onnx"): "torch.onnx.export can't translate it: ",
    ("lstm", "onnx"): UNROLLED,
    ("gru", "onnx"): UNROLLED,
    ("lstm", "aoti"): UNROLLED,
    ("gru", "aoti"): UNROLLED,
    ("lstm", "aoti-int8"): UNROLLED,
    ("gru", "aoti-int8"): UNROLLED,
}
"""What can't be made, and what the reason begins with; an int8 format of ONNX goes with the ``onnx`` format."""


def source_of(build: SimpleNamespace, name: str) -> Source:
    if name in TRANSFORMERS:
        return build.transformer(name)
    if name in RECURRENT:
        return build.recurrent(name)
    source = build.image("torchvision", name, NETWORKS[name])
    shorten(source.graph)
    return source


def shorten(graph: nn.Module) -> None:
    """Leaves two of each row of equal blocks: more of them show nothing more, and take minutes to compile."""
    for module in graph.modules():
        if isinstance(module, nn.Sequential) and len(module) > 2:
            first, *others = ([(key, value.shape) for key, value in block.state_dict().items()] for block in module)
            if first and all(other == first for other in others):
                del module[2:]


def check(format: str, source: Source, file: Path, tolerance: float) -> None:
    """Every shape runs, within a tolerance of eager; an answer is its own."""

    def eager(inputs):
        with torch.inference_mode():
            return source.graph(*source.tensors(inputs)).numpy()

    run = open_runtime(format, source.bundle, file, device="cpu", threads=1).logits
    preprocessor = source.bundle.preprocessor
    found = sweep(run, make_cases(eager, source.calibration, preprocessor))

    assert found.failures == ()
    assert found.max_abs_diff <= tolerance, found.where
    if tolerance == np.inf:  # int8; to watch costs a hundred calls, and what is near eager is its own as eager's are
        assert not moves(measure_invariance(run, source.calibration[:8], preprocessor))


def made(name: str, format: str, make, *args: object) -> bool:
    """Whether a format was made; if it is skipped, for the reason that we know."""
    if (name, format) not in EXPECTED_SKIPS:
        make(*args)
        return True
    with pytest.raises(Skip) as caught:
        make(*args)
    beginning = EXPECTED_SKIPS[name, format]
    assert str(caught.value).startswith(beginning)
    assert len(str(caught.value)) > len(beginning)
    assert "\n" not in str(caught.value)
    return False


@pytest.mark.parametrize("name", ALL)
def test_onnx_and_its_int8(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    source = source_of(build, name)
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    if not made(name, "onnx", onnx.make, source, fp32):
        assert list(tmp_path.iterdir()) == []
        return
    check("onnx", source, fp32, tolerance=1e-3)

    onnx_int8.make(source, fp32, int8, Recipe())
    check("onnx-int8", source, int8, tolerance=np.inf)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "vit_b_16", "distilbert", "gpt2", *RECURRENT])
def test_aoti(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    source = source_of(build, name)
    if made(name, "aoti", aoti.make, source, tmp_path / "model.pt2"):
        check("aoti", source, tmp_path / "model.pt2", tolerance=1e-3)


@pytest.mark.skipif(this_cpu().isa == "arm64", reason="torchao's quantiser is for x86")
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "distilbert", "albert", *RECURRENT])
def test_aoti_int8(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    source = source_of(build, name)
    [recipe] = AotiInt8().recipes(source)
    if made(name, "aoti-int8", aoti_int8.make, source, tmp_path / "model.pt2", recipe):
        check("aoti-int8", source, tmp_path / "model.pt2", tolerance=np.inf)
