"""Models to export: two small trained ones, of which the image model is good enough for the gate, and untrained ones.

The untrained ones are of all kinds, and come from the fixture ``build``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.cpu import this_cpu
from trainyard.formats.source import Graph, Source
from trainyard.preprocess.base import Encoded
from trainyard.preprocess.image import ImagePreprocessor
from trainyard.preprocess.text import TextPreprocessor
from trainyard.verify.source import load_source

if TYPE_CHECKING:
    import transformers

    from trainyard.models.classifier import Classifier

Cell = Literal["lstm", "gru"]
LABELS = ("a", "b", "c")
LONGEST = 512
VOCABULARY = 100
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LONGEST + 2,
    "initializer_range": 0.5,
}


def source_of(run: Path) -> Source:
    bundle = Bundle.open(run)
    return load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)])


@pytest.fixture(scope="session")
def image_source(image_run: Path) -> Source:
    """The model of ``image_run``."""
    return source_of(image_run)


@pytest.fixture(scope="session")
def text_source(text_run: Path) -> Source:
    """The model of ``text_run``."""
    return source_of(text_run)


@pytest.fixture
def copied_run(image_run: Path, tmp_path: Path) -> Path:
    """A copy of ``image_run``'s bundle in a run folder of the test's own."""
    run = tmp_path / "run"
    shutil.copytree(image_run / "bundle", run / "bundle")
    return run


@pytest.fixture(scope="session")
def source_from() -> Callable[[Path], Source]:
    """Loads the model of a run."""
    return source_of


def untrained_source(
    classifier: Classifier, preprocessor: ImagePreprocessor | TextPreprocessor, size: int = 8
) -> Source:
    """A source without a bundle, and with random calibration records."""
    is_text = isinstance(preprocessor, TextPreprocessor)
    calibration = texts([9, 4, 7, 2] * 8, preprocessor.segments) if is_text else images(32, size)
    names = tuple(preprocessor.collate(calibration[:1]))
    return Source(
        graph=Graph(classifier, names).eval(),
        names=names,
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


def untrained_image_source(kind: str, name: str, size: int) -> Source:
    return untrained_source(*untrained_image_classifier(kind, name, size), size)


def untrained_image_classifier(kind: str, name: str, size: int) -> tuple[Classifier, ImagePreprocessor]:
    from trainyard.config.kinds import parse_model
    from trainyard.models.base import Task

    preprocessor = ImagePreprocessor(size=size, resize=size)
    torch.manual_seed(0)
    classifier = parse_model({"kind": kind, "name": name}).build(Task(LABELS, preprocessor))
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it were trained: folding must matter
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(classifier.output_layer()[1].weight)
    return classifier, preprocessor


def text_preprocessor(pad_id: int, segments: bool = False) -> TextPreprocessor:
    return TextPreprocessor(Tokenizer(models.WordLevel({"?": 0}, "?")), LONGEST, pad_id, segments)


def transformer_source(name: str) -> Source:
    from trainyard.models.transformer import TransformerClassifier, build_network

    config = transformer_config(name)
    config.id2label = dict(enumerate(LABELS))
    torch.manual_seed(0)
    classifier = TransformerClassifier(build_network(config), {})
    return untrained_source(classifier, text_preprocessor(config.pad_token_id, segments=name == "bert"))


def transformer_config(name: str) -> transformers.PreTrainedConfig:
    import transformers

    configs: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
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
    return configs[name]()


class Recurrent(nn.Module):
    """Two layers that read forwards, and the mean over the tokens: padding behind them changes nothing."""

    def __init__(self, cell: Cell, size: int = 24) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.embedding = nn.Embedding(VOCABULARY, size)
        self.layers = nn.ModuleList(kind(size, size, batch_first=True) for _ in range(2))
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(size, len(LABELS))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(input_ids)
        for layer in self.layers:
            x, _ = layer(self.dropout(x))
        mask = attention_mask.unsqueeze(-1)
        return self.output(self.dropout(x.masked_fill(~mask.bool(), 0).sum(dim=1) / mask.sum(dim=1)))


def recurrent_source(cell: Cell) -> Source:
    from trainyard.models.classifier import TextClassifier

    torch.manual_seed(0)
    network = Recurrent(cell)
    nn.init.normal_(network.output.weight)
    return untrained_source(TextClassifier(network, list(network.children())), text_preprocessor(0))


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Functions that make untrained models, and items for them."""
    return SimpleNamespace(
        source=untrained_source,
        image=untrained_image_source,
        transformer=transformer_source,
        recurrent=recurrent_source,
        texts=texts,
        images=images,
    )
