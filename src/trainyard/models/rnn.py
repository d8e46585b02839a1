"""A bidirectional LSTM or GRU from scratch, for those who need microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData, TextsConfig
from trainyard.models.base import ModelConfig, Task
from trainyard.models.wordpiece import item_texts, train_wordpiece
from trainyard.preprocess.preprocessor import Item, TextPreprocessor

if TYPE_CHECKING:
    from trainyard.models.classifier import Classifier

DEFAULT_DROPOUT = 0.3
Size = Annotated[int, Field(ge=1)]


class RnnConfig(ModelConfig):
    """A bidirectional LSTM or GRU over WordPiece tokens, from scratch."""

    kind: Literal["rnn"]
    """Family of the model."""
    name: Literal["lstm", "gru"] = "lstm"
    """The recurrent cell."""
    embedding_size: Size = 128
    """Width of the token embeddings."""
    hidden_size: Size = 128
    """Width of each direction."""
    layers: Size = 1
    """Number of bidirectional layers."""
    vocab_size: Annotated[int, Field(ge=100)] = 4000
    """Most WordPiece tokens in the vocabulary learnt from the training texts."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        if not isinstance(data, TextsConfig):
            raise UsageError(f"model.kind={self.kind} is for texts: set data.kind=texts, or another model.kind")
        if self.pretrained:
            raise UsageError(f"model.kind={self.kind} is trained from scratch: set model.pretrained=false")

    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> TextPreprocessor:
        """With a vocabulary learnt from the training texts; see ``ModelConfig``."""
        assert isinstance(data, TextsConfig), "checked"
        return TextPreprocessor(train_wordpiece(item_texts(items), self.vocab_size), data.max_length)

    def build(self, task: Task) -> Classifier:
        """See ``ModelConfig``."""
        from trainyard.models.classifier import TextClassifier
        from trainyard.models.rnn_network import RecurrentNetwork

        preprocessor = task.preprocessor
        assert isinstance(preprocessor, TextPreprocessor)
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
        return TextClassifier(network, [network.embedding, *network.layers, network.output])

    def restore(self, task: Task, folder: Path) -> Classifier:
        """See ``ModelConfig``; the vocabulary's size is the preprocessor's."""
        return self.build(task)
