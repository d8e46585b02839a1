"""A bidirectional recurrent classifier of texts whose answer does not depend on padding."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

Cell = Literal["lstm", "gru"]


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
    positions = torch.ones_like(mask).cumsum(dim=1) - 1
    return torch.where(mask.bool(), mask.sum(dim=1, keepdim=True) - 1 - positions, positions)


def _take(x: Tensor, positions: Tensor) -> Tensor:
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _pool(x: Tensor, mask: Tensor) -> Tensor:
    """Mean and maximum over the tokens: ``[batch, 2 width]``."""
    padding = ~mask.bool().unsqueeze(-1)
    mean = x.masked_fill(padding, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    # A recurrent cell's output is above -1.
    return torch.cat([mean, x.masked_fill(padding, -1).amax(dim=1)], dim=-1)
