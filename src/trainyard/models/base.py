"""What every model's config has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from trainyard.config.data import AnyData
from trainyard.config.section import Section
from trainyard.models.classifier import Classifier
from trainyard.preprocess.base import Item, Preprocessor


@dataclass(frozen=True)
class Task:
    """What a model is built for: the classes it tells apart and the preprocessor that feeds it."""

    labels: tuple[str, ...]
    preprocessor: Preprocessor


class ModelConfig(Section, ABC):
    """The keys of every model, and how one is made.

    A new model is a subclass in a file of its own, registered by one line in the project's ``models``.
    """

    kind: str
    """Family of the model."""
    name: str
    """The model within its family."""
    pretrained: bool | str = False
    """Weights to start from: `false` (from scratch), `true` (published ones), or a path or hub id."""
    freeze: Literal["none", "backbone"] = "none"
    """`backbone` trains the output layers only."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout probability; by default the model's own."""

    @abstractmethod
    def check(self, data: AnyData) -> None:
        """Refuses what can't work, before the data is read: that may take long.

        Raises:
            UsageError: the model can't take this kind of data, its name is unknown, or its files are missing.
        """

    @abstractmethod
    def preprocessor(self, data: AnyData, items: Sequence[Item]) -> Preprocessor:
        """The preprocessor that goes with this model; ``items`` are the training split's, for a vocabulary.

        Raises:
            UsageError: the model can't take this kind of data, or its files are missing.
        """

    @abstractmethod
    def build(self, task: Task) -> Classifier:
        """Builds the model, with its pretrained weights if the config asks for them.

        Raises:
            UsageError: the name is unknown (names the nearest), or the weights can't be found or don't fit.
        """

    @abstractmethod
    def restore(self, task: Task, folder: Path) -> Classifier:
        """Builds the same architecture from a bundle's folder, weights left as they come; never touches the network."""
