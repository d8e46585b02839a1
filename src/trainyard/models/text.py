"""What all text models have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from trainyard.base.errors import UsageError
from trainyard.config.data import AnyData, TextsConfig
from trainyard.models.base import ModelConfig
from trainyard.models.wordpiece import item_texts, train_wordpiece
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import TextPreprocessor


class TextModelConfig(ModelConfig):
    """The keys of every text model. Unless its class does otherwise, it learns a vocabulary from the training texts."""

    segments: ClassVar[bool] = False
    """Whether the network tells the two texts of a pair apart by ``token_type_ids``."""

    vocab_size: Annotated[int, Field(ge=100)] = 4000
    """Most WordPiece tokens in the vocabulary learnt from the training texts."""

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``."""
        if not isinstance(data, TextsConfig):
            raise UsageError(f"model.kind={self.kind} is for texts: set data.kind=texts, or another model.kind")

    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> TextPreprocessor:
        """See ``ModelConfig``."""
        assert isinstance(data, TextsConfig), "checked"
        tokenizer = train_wordpiece(item_texts(items), self.vocab_size)
        return TextPreprocessor(tokenizer, data.max_length, segments=self.segments)
