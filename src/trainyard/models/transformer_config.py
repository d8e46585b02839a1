"""What a config of transformers' sequence classifiers has besides its keys: files, tokenizer, building, restoring."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from torch import nn

from trainyard.config.data import AnyData, TextsConfig
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier
from trainyard.models.hub import find_model
from trainyard.models.text import TextModelConfig
from trainyard.models.transformer import TOKENIZER_CONFIG, TransformerClassifier, build_network, load_config
from trainyard.models.transformer_tokenizer import describe_tokenizer, load_preprocessor, special_tokens
from trainyard.models.wordpiece import SPECIAL_NAMES
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import TextPreprocessor


class TransformerConfig(TextModelConfig):
    """A classifier of transformers: a pretrained one with its own tokenizer, or a fresh one with a vocabulary learnt
    from the training texts.
    """

    segments: ClassVar[bool] = True

    @abstractmethod
    def source(self) -> str | None:
        """Folder or hub id of the pretrained model; ``None`` from scratch.

        Raises:
            UsageError: the keys contradict each other.
        """

    @abstractmethod
    def fresh_network(self, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        """A network that ``AutoModelForSequenceClassification`` makes, with fresh weights."""

    @abstractmethod
    def pretrained_network(self, folder: Path, preprocessor: TextPreprocessor, labels: Sequence[str]) -> nn.Module:
        """The network with a folder's weights.

        Raises:
            UsageError: the weights don't fit.
        """

    def check(self, data: AnyData) -> None:
        """See ``ModelConfig``; a model of the hub is downloaded."""
        super().check(data)
        if self.source() is not None:
            self.preprocessor(data, items=[])  # reads the folder's files, which hold all that can be wrong

    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> TextPreprocessor:
        """With the pretrained model's own tokenizer, or one learnt from the training texts; see ``ModelConfig``."""
        source = self.source()
        if source is None:
            return super().preprocessor(data, items)
        assert isinstance(data, TextsConfig), "checked"
        folder = find_model(source)
        return load_preprocessor(folder, load_config(folder), data.max_length)

    def build(self, task: Task) -> Classifier:
        """See ``ModelConfig``; the output layer is a fresh one where the number of classes differs."""
        preprocessor = task.preprocessor
        assert isinstance(preprocessor, TextPreprocessor), "checked"
        source = self.source()
        if source is None:
            network, special = self.fresh_network(preprocessor, task.labels), SPECIAL_NAMES
        else:
            folder = find_model(source)
            network, special = self.pretrained_network(folder, preprocessor, task.labels), special_tokens(folder)
        return TransformerClassifier(network, describe_tokenizer(preprocessor, special))

    def restore(self, task: Task, folder: Path) -> Classifier:
        """See ``ModelConfig``; the architecture is that of the folder's ``config.json``."""
        tokenizer_config = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        return TransformerClassifier(build_network(load_config(folder)), tokenizer_config)
