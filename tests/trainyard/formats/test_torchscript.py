"""The torchscript format: the same answers as the model's, whatever the batch, the lengths and the padding."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainyard.formats.errors import Skip
from trainyard.formats.making import torchscript
from trainyard.formats.source import Source
from trainyard.formats.torchscript import TorchScriptRuntime
from trainyard.models.classifier import ImageClassifier
from trainyard.preprocess.base import Encoded
from trainyard.preprocess.image import ImagePreprocessor

BATCHES = (1, 2, 7, 32)
LENGTHS = (1, 3, 16, 128, 512)
TRANSFORMERS = [
    "bert", "roberta", "electra", "albert", "mpnet", "deberta", "distilbert", "xlnet", "gpt2", "modernbert",
]  # fmt: skip
NETWORKS = [
    ("resnet18", 64),
    ("mobilenet_v3_small", 64),
    ("densenet121", 64),
    ("efficientnet_b0", 64),
    ("googlenet", 64),
    ("vit_b_16", 32),
    ("swin_t", 64),
    ("vgg11", 64),
    ("convnext_tiny", 64),
]


def make(source: Source, folder: Path) -> TorchScriptRuntime:
    torchscript.make(source, folder / "model.torchscript.pt")
    return TorchScriptRuntime(folder / "model.torchscript.pt")


def difference(runtime: TorchScriptRuntime, source: Source, encoded: list[Encoded]) -> float:
    """The greatest difference of a logit, in shares of the greatest logit where that is above one."""
    inputs = source.batch(encoded)
    with torch.inference_mode():
        expected = source.graph(*source.tensors(inputs)).numpy()
    # Twice and more: the first calls are profiled, the later ones run what was made of the profile.
    answers = [runtime.logits(inputs) for _ in range(3)]
    assert all(answer.shape == expected.shape for answer in answers)
    worst = max(np.abs(answer - expected).max() for answer in answers)
    return float(worst / max(1.0, np.abs(expected).max()))


def lengths_of(batch: int, longest: int) -> list[int]:
    return [longest, *(1 + 37 * i % longest for i in range(1, batch))]


def check_texts(build: SimpleNamespace, source: Source, folder: Path) -> None:
    runtime = make(source, folder)
    segments = "token_type_ids" in source.names
    for batch in BATCHES:
        for length in LENGTHS:
            if batch * length > 4096:
                continue
            assert difference(runtime, source, build.texts(lengths_of(batch, length), segments)) <= 1e-5
            assert difference(runtime, source, build.texts([length] * batch, segments)) <= 1e-5


def test_convolutions_of_any_batch(build: SimpleNamespace, tmp_path: Path) -> None:
    source = build.image("cnn", "plain", 8)
    runtime = make(source, tmp_path)
    for batch in BATCHES:
        assert difference(runtime, source, build.images(batch, 8)) <= 1e-5


def test_batch_norms_are_folded(build: SimpleNamespace, tmp_path: Path) -> None:
    make(build.image("cnn", "plain", 8), tmp_path)
    graph = str(torch.jit.load(tmp_path / "model.torchscript.pt").inlined_graph)
    assert "conv" in graph
    assert "batch_norm" not in graph


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_torchvision_models_of_any_batch(build: SimpleNamespace, tmp_path: Path, name: str, size: int) -> None:
    source = build.image("torchvision", name, size)
    runtime = make(source, tmp_path)
    for batch in (1, 2, 7):
        assert difference(runtime, source, build.images(batch, size)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_of_any_batch_and_length(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    check_texts(build, build.transformer(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_nets_of_any_batch_and_length(build: SimpleNamespace, tmp_path: Path, cell: str) -> None:
    check_texts(build, build.recurrent(cell), tmp_path)


@pytest.mark.parametrize("name", ["lstm", "gru", "bert"])
def test_any_lengths_in_any_batch(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    source = build.transformer(name) if name in TRANSFORMERS else build.recurrent(name)
    runtime = make(source, tmp_path)

    @settings(max_examples=15)
    @given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(0, 20))
    def as_eager(lengths: list[int], extra: int) -> None:
        encoded = build.texts(lengths, segments=name == "bert")
        assert difference(runtime, source, encoded) <= 1e-5
        # A longer companion pads the first; its answer must not follow.
        inputs = source.batch([encoded[0], *build.texts([lengths[0] + extra], segments=name == "bert")])
        alone = runtime.logits(source.batch(encoded[:1]))
        np.testing.assert_allclose(runtime.logits(inputs)[:1], alone, rtol=0, atol=1e-4)

    as_eager()


def test_a_trace_without_padding_heeds_the_mask(build: SimpleNamespace, tmp_path: Path) -> None:
    """Attention code leaves a mask of ones out; a trace must not keep that."""
    source = build.transformer("bert")
    source.calibration[:] = build.texts([6] * 8, segments=True)  # type: ignore[index]
    assert bool(source.examples[1].all())
    runtime = make(source, tmp_path)
    assert difference(runtime, source, build.texts([40, 3, 1], segments=True)) <= 1e-5


def test_inputs_go_by_name(build: SimpleNamespace, tmp_path: Path) -> None:
    source = build.transformer("bert")
    runtime = make(source, tmp_path)
    inputs = source.batch(build.texts([5, 3], segments=True))
    turned = {name: inputs[name] for name in reversed(inputs)}
    np.testing.assert_array_equal(runtime.logits(turned), runtime.logits(inputs))


@pytest.mark.parametrize("name", ["bert", "plain"])
def test_nothing_is_warned_of(build: SimpleNamespace, tmp_path: Path, name: str) -> None:
    source = build.transformer(name) if name in TRANSFORMERS else build.image("cnn", name, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchscript.make(source, tmp_path / "model.torchscript.pt")


def test_the_model_stays_as_it_is(build: SimpleNamespace, tmp_path: Path) -> None:
    source = build.image("cnn", "plain", 8)
    before = {name: tensor.clone() for name, tensor in source.graph.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in source.graph.state_dict().items()}
    make(source, tmp_path)
    after = source.graph.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: tensor.stride() for name, tensor in after.items()} == strides


class GivesText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> object:
        return SimpleNamespace(float=lambda: "no tensor")


def test_what_cannot_be_traced_is_skipped(build: SimpleNamespace, tmp_path: Path) -> None:
    network = GivesText()
    classifier = ImageClassifier(network, [network.output], mean=[0.5] * 3, std=[0.5] * 3)
    source = build.source(classifier, ImagePreprocessor(size=8, resize=8))
    with pytest.raises(Skip, match="torch.jit.trace can't follow this network: \\w+") as caught:
        torchscript.make(source, tmp_path / "model.torchscript.pt")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
