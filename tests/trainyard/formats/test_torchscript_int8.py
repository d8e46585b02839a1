"""The torchscript-int8 format: close to the model, in int8 where the recipe says so, and quiet."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from untrained import LABELS, Cell, Recurrent, images, untrained_image_classifier

from trainyard.artifacts.bundle import Bundle
from trainyard.base.cpu import Cpu, this_cpu
from trainyard.formats.errors import Skip
from trainyard.formats.making import torchscript_int8
from trainyard.formats.recipes import KERNELS, Recipe
from trainyard.formats.source import Graph, Source
from trainyard.formats.torchscript import TorchScriptRuntime
from trainyard.formats.torchscript_int8 import TorchScriptInt8
from trainyard.models.classifier import Classifier, ImageClassifier, TextClassifier
from trainyard.models.transformer import TransformerClassifier, build_network
from trainyard.preprocess.base import Encoded
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor

STATIC, DYNAMIC = Recipe(), Recipe(static=False)
PREFIX = "classifier.network."
VNNI = Cpu("", ("avx2", "avx512f", "avx512_vnni"), 1)
AVX2 = Cpu("", ("avx2",), 1)
ANSWER = """
import sys, numpy as np
from pathlib import Path
from trainyard.formats.torchscript import TorchScriptRuntime
runtime = TorchScriptRuntime(Path(sys.argv[1]), threads=1)
np.save(sys.argv[3], runtime.logits(dict(np.load(sys.argv[2]))))
"""

on_x86 = pytest.mark.skipif(this_cpu().isa == "arm64", reason="these are the x86 engine's kernels")


def source_of(
    classifier: Classifier, preprocessor: ImagePreprocessor | TextPreprocessor, calibration: list[Encoded]
) -> Source:
    names = tuple(preprocessor.collate(calibration[:1]))
    return Source(
        graph=Graph(classifier, names).eval(),
        names=names,
        calibration=calibration,
        bundle=cast(Bundle, SimpleNamespace(preprocessor=preprocessor)),
        cpu=this_cpu(),
    )


def texts(lengths: list[int]) -> list[Encoded]:
    random = np.random.default_rng(sum(lengths))
    return [random.integers(5, 100, (1, length)).astype(np.int32) for length in lengths]


def image_source(kind: str = "cnn", name: str = "plain", size: int = 8) -> Source:
    classifier, preprocessor = untrained_image_classifier(kind, name, size)
    return source_of(classifier, preprocessor, images(70, size))  # three batches, the last a small one


def network_source(network: nn.Module, output: nn.Module) -> Source:
    classifier = ImageClassifier(network, [output], mean=[0.5] * 3, std=[0.25] * 3)
    return source_of(classifier, ImagePreprocessor(size=8, resize=8), images(40, 8))


def text_source(classifier: Classifier) -> Source:
    preprocessor = TextPreprocessor(Tokenizer(models.WordLevel({"?": 0}, "?")), 512)
    return source_of(classifier, preprocessor, texts([9, 4, 7, 2] * 8))


def transformer_source(config: transformers.PreTrainedConfig) -> Source:
    config.id2label = dict(enumerate(LABELS))
    torch.manual_seed(0)
    return text_source(TransformerClassifier(build_network(config), {}))


def bert_source() -> Source:
    return transformer_source(
        transformers.BertConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
    )


def recurrent_source(cell: Cell) -> Source:
    torch.manual_seed(0)
    network = Recurrent(cell)
    return text_source(TextClassifier(network, list(network.children())))


def make(source: Source, folder: Path, recipe: Recipe) -> TorchScriptRuntime:
    torchscript_int8.make(source, folder / "model.pt", recipe)
    return TorchScriptRuntime(folder / "model.pt")


def eager(source: Source, encoded: list[Encoded]) -> np.ndarray:
    with torch.inference_mode():
        return source.graph(*source.tensors(source.batch(encoded))).numpy()


def difference(runtime: TorchScriptRuntime, source: Source, encoded: list[Encoded]) -> float:
    """The greatest difference of a logit, in shares of the greatest logit."""
    expected = eager(source, encoded)
    answers = [runtime.logits(source.batch(encoded)) for _ in range(3)]  # profiled first, then optimised
    return float(max(np.abs(answer - expected).max() for answer in answers) / np.abs(expected).max())


def operators(file: Path) -> list[str]:
    """What the model in a file calls, in order."""
    graph = torch.jit.load(file).inlined_graph
    return [node.kind() for node in graph.nodes()]


def test_recipes() -> None:
    assert all(recipe.static for recipe in TorchScriptInt8().recipes(image_source()))
    assert TorchScriptInt8().recipes(bert_source()) == [DYNAMIC]


@pytest.mark.parametrize("recipe", [STATIC, Recipe(calibrator="histogram"), Recipe(per_channel=False)])
def test_convolutions_in_int8(tmp_path: Path, recipe: Recipe) -> None:
    source = image_source()
    runtime = make(source, tmp_path, recipe)
    kinds = operators(tmp_path / "model.pt")
    assert sum(kind.startswith("quantized::conv2d") for kind in kinds) == 3
    assert kinds.count("quantized::linear") == 1
    assert not {"aten::_convolution", "aten::conv2d", "aten::batch_norm", "aten::linear"} & set(kinds)
    for batch in (1, 2, 7, 32):
        assert difference(runtime, source, images(batch, 8)) < 0.1


@on_x86
def test_recipes_differ(tmp_path: Path) -> None:
    source = replace(image_source(), cpu=VNNI)
    ways = [
        (source, STATIC),
        (source, Recipe(per_channel=False)),
        (source, Recipe(calibrator="histogram")),
        (replace(source, cpu=AVX2), STATIC),
    ]
    encoded = images(7, 8)
    answers = [make(one, tmp_path, recipe).logits(source.batch(encoded)) for one, recipe in ways]
    for i, answer in enumerate(answers):
        for other in answers[:i]:
            assert np.abs(answer - other).max() > 1e-4


@on_x86
def test_seven_bits_without_vnni(tmp_path: Path) -> None:
    """A step of an activation is twice as large, and errors grow with it."""
    source = image_source()
    encoded = images(40, 8)
    full, reduced = (
        np.square(runtime.logits(source.batch(encoded)) - eager(source, encoded)).mean()
        for runtime in (make(replace(source, cpu=cpu), tmp_path, STATIC) for cpu in (VNNI, AVX2))
    )
    assert reduced > 1.5 * full


def test_excluded_convolutions_stay_in_floats(tmp_path: Path) -> None:
    source = image_source()
    names = ("conv1", "conv3", "fc")
    runtime = make(source, tmp_path, replace(STATIC, exclude=tuple(PREFIX + name for name in names)))
    kinds = operators(tmp_path / "model.pt")
    assert sum(kind.startswith("quantized::conv2d") for kind in kinds) == 1
    assert sum(kind in ("aten::_convolution", "aten::conv2d") for kind in kinds) == 2
    assert "quantized::linear" not in kinds
    assert "aten::batch_norm" not in kinds
    assert difference(runtime, source, images(7, 8)) < 0.1


# Also in inference, once: torch brings GoogLeNet's branches to one scale, and tells that it has to.
@pytest.mark.filterwarnings("ignore:All inputs of this cat operator must share:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenet_v3_small", 64), ("densenet121", 64), ("efficientnet_b0", 64), ("googlenet", 64), ("vit_b_16", 32),
     ("swin_t", 64), ("convnext_tiny", 64), ("shufflenet_v2_x1_0", 64), ("regnet_y_400mf", 64)],
)  # fmt: skip
def test_torchvision_models(tmp_path: Path, name: str, size: int) -> None:
    source = image_source("torchvision", name, size)
    runtime = make(source, tmp_path, STATIC)
    assert any(kind.startswith("quantized::") for kind in operators(tmp_path / "model.pt"))
    for batch in (1, 2, 7):
        answers = runtime.logits(source.batch(images(batch, size)))
        expected = eager(source, images(batch, size))
        assert np.linalg.norm(answers - expected) < 0.5 * np.linalg.norm(expected)


def test_transformer_in_int8(tmp_path: Path) -> None:
    source = bert_source()
    runtime = make(source, tmp_path, DYNAMIC)
    kinds = operators(tmp_path / "model.pt")
    assert kinds.count("quantized::linear_dynamic") == 2 * 6 + 2  # attention, feed-forward; pooler and output
    assert "aten::linear" not in kinds
    for lengths in ([1], [30, 7], [512], [3, 9, 1, 60, 2, 2, 8]):
        assert difference(runtime, source, texts(lengths)) < 0.05


def test_excluded_linear_layers_stay_in_floats(tmp_path: Path) -> None:
    source = bert_source()
    names = ("bert.encoder.layer.0.output.dense", "classifier")
    make(source, tmp_path, replace(DYNAMIC, exclude=tuple(PREFIX + name for name in names)))
    kinds = operators(tmp_path / "model.pt")
    assert kinds.count("quantized::linear_dynamic") == 12
    assert kinds.count("aten::linear") == 2


def test_dynamic_recipes_differ(tmp_path: Path) -> None:
    source = bert_source()
    inputs = source.batch(texts([9, 4]))
    one, other = (make(source, tmp_path, replace(DYNAMIC, per_channel=each)).logits(inputs) for each in (True, False))
    assert np.abs(one - other).max() > 1e-6


def test_conv1d_in_int8(tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=2, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    source = transformer_source(config)
    runtime = make(source, tmp_path, replace(DYNAMIC, exclude=(PREFIX + "transformer.h.0.mlp.c_fc",)))
    kinds = operators(tmp_path / "model.pt")
    assert kinds.count("quantized::linear_dynamic") == 8  # four in each of two layers, and the output, but one
    assert difference(runtime, source, texts([30, 7, 1])) < 0.1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_nets_in_int8(tmp_path: Path, cell: Cell) -> None:
    source = recurrent_source(cell)
    runtime = make(source, tmp_path, DYNAMIC)
    kinds = operators(tmp_path / "model.pt")
    assert kinds.count(f"aten::quantized_{cell}") == 2
    assert kinds.count("quantized::linear_dynamic") == 1
    for lengths in ([1], [30, 7], [128], [3, 9, 1, 60]):
        assert difference(runtime, source, texts(lengths)) < 0.05


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(192, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return cast(Tensor, self.output(x if x.sum() > 0 else -x))


def test_control_flow_is_skipped(tmp_path: Path) -> None:
    network = Branch()
    with pytest.raises(Skip, match="can't quantise this network: symbolically traced variables") as caught:
        make(network_source(network, network.output), tmp_path, STATIC)
    assert "\n" not in str(caught.value)


def test_torch_without_quantisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.ao, "quantization", raising=False)
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    for source, recipe in ((image_source(), STATIC), (bert_source(), DYNAMIC)):
        with pytest.raises(Skip, match="no torch.ao.quantization any more"):
            make(source, tmp_path, recipe)


def test_processor_without_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image_source()
    monkeypatch.setitem(KERNELS, source.cpu.isa, replace(KERNELS[source.cpu.isa], engine="abacus"))
    with pytest.raises(Skip, match="no int8 kernels for this processor .engine abacus"):
        make(source, tmp_path, STATIC)


@on_x86
def test_engine_is_put_back(tmp_path: Path) -> None:
    network = Branch()
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        make(image_source(), tmp_path, STATIC)
        assert torch.backends.quantized.engine == "fbgemm"
        with pytest.raises(Skip):
            make(network_source(network, network.output), tmp_path, STATIC)
        assert torch.backends.quantized.engine == "fbgemm"
    finally:
        torch.backends.quantized.engine = before


@on_x86
@pytest.mark.parametrize("recipe", [STATIC, Recipe(calibrator="histogram"), DYNAMIC])
def test_nothing_is_warned_of(tmp_path: Path, recipe: Recipe) -> None:
    source = replace(image_source() if recipe.static else bert_source(), cpu=AVX2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchscript_int8.make(source, tmp_path / "model.pt", recipe)


@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC])
def test_the_model_stays_as_it_is(tmp_path: Path, recipe: Recipe) -> None:
    source = image_source() if recipe.static else bert_source()
    before = {name: tensor.clone() for name, tensor in source.graph.state_dict().items()}
    kinds = [type(module) for module in source.graph.modules()]
    make(source, tmp_path, recipe)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.graph.state_dict().items())
    assert [type(module) for module in source.graph.modules()] == kinds


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC])
def test_a_fresh_process_needs_no_setting(tmp_path: Path, recipe: Recipe) -> None:
    source = image_source() if recipe.static else bert_source()
    inputs = source.batch(images(5, 8) if recipe.static else texts([9, 4]))
    expected = make(source, tmp_path, recipe).logits(inputs)
    np.savez(tmp_path / "inputs.npz", **inputs)
    files = [str(tmp_path / name) for name in ("model.pt", "inputs.npz", "answer.npy")]
    subprocess.run([sys.executable, "-W", "error", "-c", ANSWER, *files], check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, rtol=0, atol=1e-6)
