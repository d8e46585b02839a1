"""The torchscript rung: the same answers as the model's, whatever the batch, the lengths and the padding."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import Tensor, nn

from trainyard.core.bundle import Bundle
from trainyard.core.cpu import this_cpu
from trainyard.core.preprocess import Encoded, ImagePreprocessor, TextPreprocessor
from trainyard.core.torchscript import TorchScriptRuntime
from trainyard.export import torchscript
from trainyard.export.errors import Skip
from trainyard.export.source import BATCH, LENGTH, Graph, Source
from trainyard.models import parse_model
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier, ImageClassifier, TextClassifier
from trainyard.models.rnn_network import Cell, RecurrentNetwork
from trainyard.models.transformer import TransformerClassifier, build_network

LABELS = ("a", "b", "c")
LONGEST = 512
VOCABULARY = 100
BATCHES = (1, 2, 7, 32)
LENGTHS = (1, 3, 16, 128, 512)
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LONGEST + 2,
    "initializer_range": 0.5,
}
CONFIGS: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "bert": lambda: transformers.BertConfig(**BERT_LIKE),
    "roberta": lambda: transformers.RobertaConfig(type_vocab_size=1, **BERT_LIKE),
    "electra": lambda: transformers.ElectraConfig(embedding_size=16, **BERT_LIKE),
    "albert": lambda: transformers.AlbertConfig(embedding_size=16, **BERT_LIKE),
    "mpnet": lambda: transformers.MPNetConfig(**BERT_LIKE),
    "deberta": lambda: transformers.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=32, **BERT_LIKE
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=32, initializer_range=0.5
    ),
    "xlnet": lambda: transformers.XLNetConfig(
        vocab_size=VOCABULARY, d_model=16, n_layer=2, n_head=2, d_inner=32, initializer_range=0.5
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LONGEST, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=2, eos_token_id=2, pad_token_id=0,
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip
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


def source_of(classifier: Classifier, preprocessor: ImagePreprocessor | TextPreprocessor, size: int = 8) -> Source:
    """A source without a bundle, and with random calibration records."""
    is_text = isinstance(preprocessor, TextPreprocessor)
    calibration = texts([9, 4, 7, 2] * 8, preprocessor.segments) if is_text else images(32, size)
    names = tuple(preprocessor.collate(calibration[:1]))
    return Source(
        graph=Graph(classifier, names).eval(),
        names=names,
        dynamic=dict.fromkeys(names, {0: BATCH, 1: LENGTH} if is_text else {0: BATCH}),
        calibration=calibration,
        bundle=cast(Bundle, SimpleNamespace(preprocessor=preprocessor)),
        cpu=this_cpu(),
    )


def texts(lengths: list[int], segments: bool = False) -> list[Encoded]:
    random = np.random.default_rng(sum(lengths))
    rows = [random.integers(5, VOCABULARY, (1, length)).astype(np.int32) for length in lengths]
    return [np.concatenate([row, row % 2]) for row in rows] if segments else rows


def images(count: int, size: int) -> list[Encoded]:
    return list(np.random.default_rng(count).integers(0, 256, (count, size, size, 3)).astype(np.uint8))


def image_source(kind: str, name: str, size: int) -> Source:
    preprocessor = ImagePreprocessor(size=size, resize=size)
    torch.manual_seed(0)
    classifier = parse_model({"kind": kind, "name": name}).build(Task(LABELS, preprocessor))
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it were trained: folding must matter
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(classifier.output_layer()[1].weight)
    return source_of(classifier, preprocessor, size)


def text_preprocessor(pad_id: int, segments: bool = False) -> TextPreprocessor:
    return TextPreprocessor(Tokenizer(models.WordLevel({"?": 0}, "?")), LONGEST, pad_id, segments)


def transformer_source(name: str) -> Source:
    config = CONFIGS[name]()
    config.id2label = dict(enumerate(LABELS))
    torch.manual_seed(0)
    classifier = TransformerClassifier(build_network(config), {})
    return source_of(classifier, text_preprocessor(config.pad_token_id, segments=name == "bert"))


def recurrent_source(cell: Cell) -> Source:
    torch.manual_seed(0)
    network = RecurrentNetwork(cell, VOCABULARY, 16, 24, layers=2, dropout=0.3, classes=3, pad_id=0)
    nn.init.normal_(network.output.weight)
    stages = [network.embedding, *network.layers, network.output]
    return source_of(TextClassifier(network, stages), text_preprocessor(0))


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
    assert all(answer.shape == (len(encoded), len(LABELS)) for answer in answers)
    worst = max(np.abs(answer - expected).max() for answer in answers)
    return float(worst / max(1.0, np.abs(expected).max()))


def lengths_of(batch: int, longest: int) -> list[int]:
    return [longest, *(1 + 37 * i % longest for i in range(1, batch))]


def check_texts(source: Source, folder: Path) -> None:
    runtime = make(source, folder)
    segments = "token_type_ids" in source.names
    for batch in BATCHES:
        for length in LENGTHS:
            if batch * length > 4096:
                continue
            assert difference(runtime, source, texts(lengths_of(batch, length), segments)) <= 1e-5
            assert difference(runtime, source, texts([length] * batch, segments)) <= 1e-5


def test_resnet_of_any_batch(tmp_path: Path) -> None:
    source = image_source("resnet", "resnet20", 8)
    runtime = make(source, tmp_path)
    for batch in BATCHES:
        assert difference(runtime, source, images(batch, 8)) <= 1e-5


def test_batch_norms_are_folded(tmp_path: Path) -> None:
    make(image_source("resnet", "resnet20", 8), tmp_path)
    graph = str(torch.jit.load(tmp_path / "model.torchscript.pt").inlined_graph)
    assert "conv" in graph
    assert "batch_norm" not in graph


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_torchvision_models_of_any_batch(tmp_path: Path, name: str, size: int) -> None:
    source = image_source("torchvision", name, size)
    runtime = make(source, tmp_path)
    for batch in (1, 2, 7):
        assert difference(runtime, source, images(batch, size)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_of_any_batch_and_length(tmp_path: Path, name: str) -> None:
    check_texts(transformer_source(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_nets_of_any_batch_and_length(tmp_path: Path, cell: Cell) -> None:
    check_texts(recurrent_source(cell), tmp_path)


@pytest.mark.parametrize("name", ["lstm", "gru", "bert"])
def test_any_lengths_in_any_batch(tmp_path: Path, name: str) -> None:
    source = transformer_source(name) if name in CONFIGS else recurrent_source(cast(Cell, name))
    runtime = make(source, tmp_path)

    @settings(max_examples=15)
    @given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(0, 20))
    def as_eager(lengths: list[int], extra: int) -> None:
        encoded = texts(lengths, segments=name == "bert")
        assert difference(runtime, source, encoded) <= 1e-5
        # A longer companion pads the first; its answer must not follow.
        inputs = source.batch([encoded[0], *texts([lengths[0] + extra], segments=name == "bert")])
        alone = runtime.logits(source.batch(encoded[:1]))
        np.testing.assert_allclose(runtime.logits(inputs)[:1], alone, rtol=0, atol=1e-4)

    as_eager()


def test_a_trace_without_padding_heeds_the_mask(tmp_path: Path) -> None:
    """Attention code leaves a mask of ones out; a trace must not keep that."""
    source = transformer_source("bert")
    source.calibration[:] = texts([6] * 8, segments=True)  # type: ignore[index]
    assert bool(source.examples[1].all())
    runtime = make(source, tmp_path)
    assert difference(runtime, source, texts([40, 3, 1], segments=True)) <= 1e-5


def test_inputs_go_by_name(tmp_path: Path) -> None:
    source = transformer_source("bert")
    runtime = make(source, tmp_path)
    inputs = source.batch(texts([5, 3], segments=True))
    turned = {name: inputs[name] for name in reversed(inputs)}
    np.testing.assert_array_equal(runtime.logits(turned), runtime.logits(inputs))


@pytest.mark.parametrize("name", ["bert", "resnet20"])
def test_nothing_is_warned_of(tmp_path: Path, name: str) -> None:
    source = transformer_source(name) if name in CONFIGS else image_source("resnet", name, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchscript.make(source, tmp_path / "model.torchscript.pt")


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    source = image_source("resnet", "resnet20", 8)
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


def test_what_cannot_be_traced_is_skipped(tmp_path: Path) -> None:
    network = GivesText()
    classifier = ImageClassifier(network, [network.output], mean=[0.5] * 3, std=[0.5] * 3)
    source = source_of(classifier, ImagePreprocessor(size=8, resize=8))
    with pytest.raises(Skip, match="torch.jit.trace can't follow this network: \\w+") as caught:
        torchscript.make(source, tmp_path / "model.torchscript.pt")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
