"""The recurrent baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.base.errors import UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier
from trainyard.preprocess.text import TextPreprocessor

from my_project.models.rnn import RnnConfig

LABELS = ("billing", "crash", "other")
TEXTS = ["the refund is late", "it crashes", "a refund, a refund, my refund for the late order", "why"] * 2


def build(**keys: object) -> tuple[Classifier, Task]:
    config = RnnConfig(kind="rnn", **keys)
    task = Task(LABELS, config.preprocessor(TextsConfig(kind="texts", path="unused", max_length=20), TEXTS))
    torch.manual_seed(0)
    return config.build(task).eval(), task


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_padding_and_neighbours_do_not_change_the_answer(name: str, layers: int) -> None:
    classifier, _ = build(name=name, layers=layers, hidden_size=16, embedding_size=8)
    rows = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=4)

    @settings(max_examples=30, deadline=None)
    @given(rows, st.integers(0, 9), st.integers(0, 40))
    def same_answer(ids: list[list[int]], more: int, padding: int) -> None:
        length = max(len(row) for row in ids) + more
        batch = torch.tensor([row + [padding] * (length - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in ids])
        with torch.no_grad():
            together = classifier(batch, mask)
            alone = torch.cat([classifier(torch.tensor([row]), torch.ones(1, len(row)).long()) for row in ids])
        assert (together - alone).abs().max() < 1e-5

    same_answer()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_both_directions_are_read(name: str) -> None:
    """A change of the first token reaches the last position and the other way round: here, both change the answer."""
    classifier, _ = build(name=name)
    mask = torch.ones(1, 5, dtype=torch.long)
    with torch.no_grad():
        layer = classifier.network.layers[0]
        turned = torch.tensor([[4, 3, 2, 1, 0]])
        x = torch.randn(1, 5, 128)
        base = layer(x, turned)
        first, last = x.clone(), x.clone()
        first[:, 0] += 1
        last[:, -1] += 1
        assert not torch.allclose(layer(first, turned)[:, -1, :128], base[:, -1, :128])
        assert not torch.allclose(layer(last, turned)[:, 0, 128:], base[:, 0, 128:])
    assert classifier(torch.ones_like(mask), mask).dtype == torch.float32


def test_gradients_ignore_padding() -> None:
    classifier, _ = build(name="gru", dropout=0.0)
    classifier.train()
    ids = torch.tensor([[5, 6, 7]])
    gradients = []
    for more in (0, 4):
        classifier.zero_grad()
        padded = torch.nn.functional.pad(ids, (0, more))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (0, more))
        classifier(padded, mask).logsumexp(dim=1).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in classifier.parameters()])
    for short, long in zip(*gradients, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-6)


def test_keys_shape_the_network() -> None:
    classifier, task = build(name="gru", embedding_size=10, hidden_size=6, layers=2, vocab_size=100, dropout=0.4)
    network = classifier.network
    assert isinstance(network.layers[0].ahead, torch.nn.GRU)
    assert network.embedding.embedding_dim == 10
    assert [layer.back.hidden_size for layer in network.layers] == [6, 6]
    assert network.dropout.p == 0.4
    assert network.embedding.num_embeddings == task.preprocessor.tokenizer.get_vocab_size() <= 100
    assert classifier.stage_count == 4


def test_restored_network_answers_alike(tmp_path: Path) -> None:
    classifier, task = build()
    assert isinstance(task.preprocessor, TextPreprocessor)
    restored = RnnConfig(kind="rnn").restore(task, tmp_path).eval()
    restored.network.load_state_dict(classifier.network.state_dict())
    inputs = task.preprocessor.collate(task.preprocessor.encode_many(TEXTS))
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    assert torch.equal(restored(**tensors), classifier(**tensors))
    assert restored(**tensors).shape == (len(TEXTS), len(LABELS))


# torch's own recurrent layers convert sizes to numbers, and write to a list of their weights.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_network_takes_other_lengths() -> None:
    classifier, _ = build(hidden_size=8)
    example = torch.randint(5, 30, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    traced = torch.jit.trace(classifier, example)
    other, mask = torch.randint(5, 30, (3, 11)), torch.ones(3, 11, dtype=torch.long)
    mask[1, 4:] = 0
    torch.testing.assert_close(traced(other, mask), classifier(other, mask))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attributes self:UserWarning")
def test_exported_network_takes_other_batches() -> None:
    classifier, _ = build(hidden_size=8)
    example = torch.randint(5, 30, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    shapes = ({0: torch.export.Dim("batch")}, {0: torch.export.Dim("batch")})
    program = torch.export.export(classifier, example, dynamic_shapes=shapes).module()
    ids, mask = torch.randint(5, 30, (5, 7)), torch.ones(5, 7, dtype=torch.long)
    mask[1, 4:] = 0
    torch.testing.assert_close(program(ids, mask), classifier(ids, mask))


def test_pretrained_weights_and_images_are_refused() -> None:
    with pytest.raises(UsageError, match="trained from scratch"):
        RnnConfig(kind="rnn", pretrained=True).check(TextsConfig(kind="texts", path="unused"))
    with pytest.raises(UsageError, match="is for texts"):
        RnnConfig(kind="rnn").check(ImagesConfig(kind="images", path="unused"))
