"""Transformers: a small BERT from scratch, or a pretrained one of any architecture to fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import transformers
from pydantic import Field
from torch import nn

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData
from trainyard.models.transformer import build_network, load_config, load_network, set_dropout, set_labels
from trainyard.models.transformer_config import TransformerConfig
from trainyard.preprocess.text import TextPreprocessor

FROM_SCRATCH = "bert"
FROM_SCRATCH_KEYS = ("hidden_size", "layers", "heads", "intermediate_size", "vocab_size")

Size = Annotated[int, Field(ge=1)]


class BertConfig(TransformerConfig):
    """A transformers sequence classifier: BERT, DistilBERT, RoBERTa, MiniLM, GPT-2, ..."""

    # By this word a config, and every bundle that you ever trained, finds this class: think twice before you change it.
    kind: Literal["bert"]
    """Family of the model."""
    name: str = FROM_SCRATCH
    """`bert` from scratch (`pretrained: false`); with `pretrained: true` the hub id, such as
    `google-bert/bert-base-uncased`; with a path or hub id in `pretrained`, a name of your choice."""
    # Small enough for a CPU and a few thousand texts; whoever has more of both gains more by a pretrained one.
    hidden_size: Size = 128
    """Width of the network; this, the keys below and `vocab_size` are for a BERT from scratch."""
    layers: Size = 2
    """Number of transformer layers."""
    heads: Size = 2
    """Attention heads of each layer; they divide `hidden_size`."""
    intermediate_size: Size | None = None
    """Width between the two matrices of a feed-forward block; by default four times `hidden_size`."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        super().check(data)
        if self.source() is None and self.hidden_size % self.heads:
            raise UsageError(f"model.heads={self.heads} doesn't divide model.hidden_size={self.hidden_size}")

    def source(self) -> str | None:
        """Folder or hub id of the pretrained model; ``None`` from scratch."""
        if self.pretrained is False:
            # A name that wouldn't be heeded is an error: who writes `name: roberta-base` wants RoBERTa.
            if self.name != FROM_SCRATCH:
                raise UsageError(
                    f"model.name={self.name} isn't made from scratch: set model.pretrained=true, "
                    f"or model.name={FROM_SCRATCH}"
                )
            return None
        # And so is a size, which a pretrained network brings along.
        for key in FROM_SCRATCH_KEYS:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise UsageError(f"model.{key} is for a model from scratch: leave it out or set model.pretrained=false")
        if self.pretrained is not True:
            return self.pretrained
        if self.name == FROM_SCRATCH:
            raise UsageError("model.pretrained=true needs a hub id: set model.name=google-bert/bert-base-uncased, say")
        return self.name

    def fresh_network(self, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        """A BERT for the vocabulary that was learnt, and for texts as long as the preprocessor leaves them."""
        config = transformers.BertConfig(
            # Not `vocab_size` of this class: that is the most, and few texts have fewer pieces.
            vocab_size=preprocessor.tokenizer.get_vocab_size(),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size or 4 * self.hidden_size,
            max_position_embeddings=preprocessor.max_length,
            pad_token_id=preprocessor.pad_id,
        )
        self._adapt(config, labels)
        return build_network(config)

    def pretrained_network(self, folder: Path, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        """The folder's network; its output layer is fresh where it was made for other classes, or for none."""
        config = load_config(folder)
        # GPT-2 and its kin answer by the last token before the padding, and know none of their own.
        config.pad_token_id = preprocessor.pad_id
        self._adapt(config, labels)
        return load_network(folder, config)

    def _adapt(self, config: transformers.PreTrainedConfig, labels: Sequence[str]) -> None:
        # The classes' names go into config.json: transformers then answers by name from the bundle's folder, too.
        set_labels(config, labels)
        if self.dropout is not None:
            set_dropout(config, self.dropout)
