"""Transformers' sequence classifiers: pretrained ones of any architecture, or a small BERT from scratch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData, TextsConfig
from trainyard.models.base import ModelConfig, Task
from trainyard.models.wordpiece import SPECIAL_NAMES, item_texts, train_wordpiece
from trainyard.preprocess.preprocessor import Item, TextPreprocessor

if TYPE_CHECKING:
    from torch import nn

    from trainyard.models.classifier import Classifier

FROM_SCRATCH = "bert"
FROM_SCRATCH_KEYS = ("hidden_size", "layers", "heads", "intermediate_size", "vocab_size")

Size = Annotated[int, Field(ge=1)]


class BertConfig(ModelConfig):
    """A transformers sequence classifier: BERT, DistilBERT, RoBERTa, MiniLM, GPT-2, ..."""

    kind: Literal["bert"]
    """Family of the model."""
    name: str = FROM_SCRATCH
    """`bert` from scratch (`pretrained: false`); with `pretrained: true` the hub id, such as
    `google-bert/bert-base-uncased`; with a path or hub id in `pretrained`, a name of your choice."""
    hidden_size: Size = 128
    """Width of the network; this and the keys below are for a BERT from scratch."""
    layers: Size = 2
    """Number of transformer layers."""
    heads: Size = 2
    """Attention heads of each layer; they divide `hidden_size`."""
    intermediate_size: Size | None = None
    """Width between the two matrices of a feed-forward block; by default four times `hidden_size`."""
    vocab_size: Annotated[int, Field(ge=100)] = 4000
    """Most WordPiece tokens in the vocabulary learnt from the training texts."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``; a model of the hub is downloaded."""
        if not isinstance(data, TextsConfig):
            raise UsageError(f"model.kind={self.kind} is for texts: set data.kind=texts, or another model.kind")
        if self._source() is not None:
            self.preprocessor(data, items=[])  # reads the folder's files, which hold all that can be wrong
        elif self.hidden_size % self.heads:
            raise UsageError(f"model.heads={self.heads} doesn't divide model.hidden_size={self.hidden_size}")

    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> TextPreprocessor:
        """With the pretrained model's own tokenizer, or one learnt from the training texts; see ``ModelConfig``."""
        assert isinstance(data, TextsConfig), "checked"
        source = self._source()
        if source is None:
            tokenizer = train_wordpiece(item_texts(items), self.vocab_size)
            return TextPreprocessor(tokenizer, data.max_length, segments=True)

        from trainyard.models.hub import find_model
        from trainyard.models.transformer import load_config
        from trainyard.models.transformer_tokenizer import load_preprocessor

        folder = find_model(source)
        return load_preprocessor(folder, load_config(folder), data.max_length)

    def build(self, task: Task) -> Classifier:
        """See ``ModelConfig``; the output layer is a fresh one where the number of classes differs."""
        from trainyard.models.transformer import TransformerClassifier
        from trainyard.models.transformer_tokenizer import describe_tokenizer, special_tokens

        assert isinstance(task.preprocessor, TextPreprocessor)
        source = self._source()
        if source is None:
            tokenizer_config = describe_tokenizer(task.preprocessor, SPECIAL_NAMES)
            return TransformerClassifier(self._fresh_network(task.preprocessor, task.labels), tokenizer_config)

        from trainyard.models.hub import find_model

        folder = find_model(source)
        tokenizer_config = describe_tokenizer(task.preprocessor, special_tokens(folder))
        return TransformerClassifier(self._pretrained_network(folder, task.preprocessor, task.labels), tokenizer_config)

    def restore(self, task: Task, folder: Path) -> Classifier:
        """See ``ModelConfig``; the architecture is that of the folder's ``config.json``."""
        from trainyard.models.transformer import TOKENIZER_CONFIG, TransformerClassifier, build_network, load_config

        tokenizer_config = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        return TransformerClassifier(build_network(load_config(folder)), tokenizer_config)

    def _source(self) -> str | None:
        """Folder or hub id of the pretrained model; ``None`` from scratch."""
        if self.pretrained is False:
            if self.name != FROM_SCRATCH:
                raise UsageError(
                    f"model.name={self.name} isn't made from scratch: set model.pretrained=true, "
                    f"or model.name={FROM_SCRATCH}"
                )
            return None
        for key in FROM_SCRATCH_KEYS:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise UsageError(f"model.{key} is for a model from scratch: leave it out or set model.pretrained=false")
        if self.pretrained is not True:
            return self.pretrained
        if self.name == FROM_SCRATCH:
            raise UsageError("model.pretrained=true needs a hub id: set model.name=google-bert/bert-base-uncased, say")
        return self.name

    def _fresh_network(self, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        import transformers

        from trainyard.models.transformer import build_network, set_dropout, set_labels

        config = transformers.BertConfig(
            vocab_size=preprocessor.tokenizer.get_vocab_size(),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size or 4 * self.hidden_size,
            max_position_embeddings=preprocessor.max_length,
            pad_token_id=preprocessor.pad_id,
        )
        set_labels(config, labels)
        if self.dropout is not None:
            set_dropout(config, self.dropout)
        return build_network(config)

    def _pretrained_network(self, folder: Path, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        from trainyard.models.transformer import load_config, load_network, set_dropout, set_labels

        config = load_config(folder)
        config.pad_token_id = preprocessor.pad_id
        set_labels(config, labels)
        if self.dropout is not None:
            set_dropout(config, self.dropout)
        return load_network(folder, config)
