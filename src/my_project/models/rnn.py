"""A bidirectional LSTM or GRU from scratch, for those who need microseconds. Its answers don't depend on padding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier, TextClassifier
from trainyard.models.text import TextModelConfig
from trainyard.preprocess.text import TextPreprocessor

DEFAULT_DROPOUT = 0.3

Cell = Literal["lstm", "gru"]
Size = Annotated[int, Field(ge=1)]


class RnnConfig(TextModelConfig):
    """A bidirectional LSTM or GRU over WordPiece tokens, from scratch."""

    # By this word a config, and every bundle that you ever trained, finds this class: think twice before you change it.
    kind: Literal["rnn"]
    """Family of the model."""
    name: Cell = "lstm"
    """The recurrent cell."""
    embedding_size: Size = 128
    """Width of the token embeddings."""
    hidden_size: Size = 128
    """Width of each direction."""
    layers: Size = 1
    """Number of bidirectional layers."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        super().check(data)
        if self.pretrained:
            raise UsageError(f"model.kind={self.kind} is trained from scratch: set model.pretrained=false")

    def build(self, task: Task) -> Classifier:
        """See ``ModelConfig``."""
        preprocessor = task.preprocessor
        assert isinstance(preprocessor, TextPreprocessor), "checked"
        network = RecurrentNetwork(
            cell=self.name,
            vocab_size=preprocessor.tokenizer.get_vocab_size(),
            embedding_size=self.embedding_size,
            hidden_size=self.hidden_size,
            layers=self.layers,
            dropout=DEFAULT_DROPOUT if self.dropout is None else self.dropout,
            classes=len(task.labels),
            pad_id=preprocessor.pad_id,
        )
        # From input to output: `optim.layer_decay` and `model.freeze` go by these stages.
        return TextClassifier(network, [network.embedding, *network.layers, network.output])

    def restore(self, task: Task, folder: Path) -> Classifier:
        """See ``ModelConfig``; the vocabulary's size is the preprocessor's."""
        return self.build(task)


class BidirectionalLayer(nn.Module):
    """Two recurrent nets, the second over the reversed text.

    A bidirectional ``nn.LSTM`` would start its backward pass in the padding. Here the tokens alone are turned round and
    the padding stays behind them, where neither direction reads it before a token.
    """

    def __init__(self, cell: Cell, size_in: int, hidden_size: int) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.ahead = kind(size_in, hidden_size, batch_first=True)
        self.back = kind(size_in, hidden_size, batch_first=True)

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """Maps ``[batch, length, size_in]`` to ``[batch, length, 2 hidden_size]``; ``turned`` are positions."""
        ahead, _ = self.ahead(x)
        back, _ = self.back(_take(x, turned))
        # Turned back again, so that both directions speak of the same token at each position.
        return torch.cat([ahead, _take(back, turned)], dim=-1)


class RecurrentNetwork(nn.Module):
    """Embedding, bidirectional layers, and the mean and maximum over the tokens.

    ``torch.jit.trace`` keeps batch and length dynamic; ``torch.export`` unrolls recurrent layers and fixes the length,
    up to which texts can be padded without changing their answers.

    Args:
        cell: ``lstm`` or ``gru``.
        vocab_size: Number of tokens.
        embedding_size: Width of their embeddings.
        hidden_size: Width of each direction.
        layers: Number of bidirectional layers.
        dropout: Probability before each layer and before the output.
        classes: Size of the output.
        pad_id: Token id of the padding.
    """

    def __init__(
        self,
        cell: Cell,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        layers: int,
        dropout: float,
        classes: int,
        pad_id: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=pad_id)
        sizes = [embedding_size, *[2 * hidden_size] * (layers - 1)]
        self.layers = nn.ModuleList(BidirectionalLayer(cell, size, hidden_size) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        # Two directions, and of each the mean and the maximum.
        self.output = nn.Linear(4 * hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Gives logits ``[batch, classes]`` for ``[batch, length] int64`` inputs, padded on the right."""
        turned = _turned_positions(attention_mask)
        x: Tensor = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(self.dropout(x), turned)
        return cast(Tensor, self.output(self.dropout(_pool(x, attention_mask))))


def _turned_positions(mask: Tensor) -> Tensor:
    """Of each position, the one it changes places with when a text is turned round; padding stays."""
    # Not arange(length): a trace would record the length of its example as a constant.
    positions = torch.ones_like(mask).cumsum(dim=1) - 1
    return torch.where(mask.bool(), mask.sum(dim=1, keepdim=True) - 1 - positions, positions)


def _take(x: Tensor, positions: Tensor) -> Tensor:
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _pool(x: Tensor, mask: Tensor) -> Tensor:
    """Mean and maximum over the tokens: ``[batch, 2 width]``."""
    # The last position alone, as is often done, would be padding in all texts but the longest.
    padding = ~mask.bool().unsqueeze(-1)
    mean = x.masked_fill(padding, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    # A recurrent cell's output is above -1, so the padding never is the maximum.
    return torch.cat([mean, x.masked_fill(padding, -1).amax(dim=1)], dim=-1)
