"""The one way from a raw item to tensors: in training, evaluation, export, the predictor and the server."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import BundleError

Item: TypeAlias = bytes | Path | str | tuple[str, str]
"""A raw item: an image file (its bytes or its path), a text, or a pair of texts."""
Encoded: TypeAlias = NDArray[np.uint8] | NDArray[np.int32]
"""An encoded item: an image ``[height, width, 3] uint8``, or tokens ``[1 or 2, length] int32`` (ids, then segments)."""
Inputs: TypeAlias = dict[str, NDArray[np.uint8] | NDArray[np.int64]]
"""A batch as the model takes it, by argument name."""
Kind: TypeAlias = Literal["image", "text"]
"""What an item is, by the name that requests, tables and stored samples have for one."""


class Preprocessor(ABC):
    """Turns raw items into a model's inputs, and answers what others need to know of an input.

    Whoever verifies, quantises, times or describes a model asks here and never which kind it has before it. What isn't
    abstract holds for inputs whose shape is fixed but for the batch.

    Attributes:
        kind: What an item is.
        dynamic_dimensions: Names of the dimensions that differ from batch to batch, by position in each input.
        calibration_batch: Records that a quantiser is shown at once, so many that no padding is counted among them.
        synthetic_name: What ``synthetic`` gives, for a report.
        unit: What ``cost`` counts.
        budget: So many of them may the items of one request have together.
    """

    kind: ClassVar[Kind]
    dynamic_dimensions: ClassVar[Mapping[int, str]] = {0: "batch"}
    calibration_batch: ClassVar[int] = 8
    synthetic_name: ClassVar[str]
    unit: ClassVar[str]
    budget: ClassVar[int]

    @abstractmethod
    def encode(self, item: Item) -> Encoded:
        """Encodes one raw item; raises ``ItemError`` when it can't."""

    @abstractmethod
    def cost(self, item: Item) -> int:
        """How much work it is to encode an item, told without decoding it; 0 for one that ``encode`` refuses."""

    def encode_many(self, items: Iterable[Item]) -> Sequence[Encoded]:
        """Encodes items in order; the same answers as ``encode`` one by one."""
        return [self.encode(item) for item in items]

    @abstractmethod
    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Joins encoded items into the model's inputs."""

    # In a bundle

    @abstractmethod
    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what doesn't fit into ``to_dict`` (a tokenizer) into a bundle."""

    @classmethod
    @abstractmethod
    def load(cls, settings: Mapping[str, object], folder: Path) -> Preprocessor:
        """The counterpart of ``to_dict`` and ``save``: ``settings`` are without ``kind``; see ``load_preprocessor``."""

    @abstractmethod
    def store(self, item: Item, samples: Path, name: str) -> dict[str, object]:
        """Stores an item as a sample: what its line in a ``.jsonl`` says, under the key ``kind``.

        Args:
            item: A raw item that can be encoded.
            samples: The folder of samples.
            name: Of a file for it below ``samples``, without a suffix: ``golden/0007``.
        """

    @classmethod
    @abstractmethod
    def stored(cls, record: Mapping[str, object], samples: Path) -> Item:
        """The item of a line that ``store`` gave. No preprocessor is needed, and no tokenizer loaded."""

    # What is done with a model's inputs without asking what they are

    @abstractmethod
    def synthetic(self, count: int, generator: np.random.Generator) -> list[Encoded]:
        """Random encoded items, all of one shape, for a model whose bundle carries no samples."""

    @abstractmethod
    def measures(self, encoded: Encoded) -> dict[str, float]:
        """What is measured of an input by name, the same names of each, to hold live traffic against the test split."""

    @abstractmethod
    def extremes(self, encoded: Sequence[Encoded], generator: np.random.Generator) -> list[Encoded]:
        """Neighbours, at least one, that a scale would follow if one were taken from the batch; no larger than these.

        Args:
            encoded: Items of the model, at least one.
            generator: Draws what is random in them.
        """

    def widest(self, encoded: Sequence[Encoded], generator: np.random.Generator) -> list[Encoded]:
        """Neighbours that bring as much padding as any can; none where nothing is padded. Arguments of ``extremes``."""
        return []

    def paddings(self, encoded: Sequence[Encoded]) -> Iterator[tuple[int, Inputs]]:
        """Single items padded as by a longer neighbour, each with its index; none where nothing is padded."""
        return iter(())

    @abstractmethod
    def shapes(
        self, encoded: Sequence[Encoded], sizes: Sequence[int], generator: np.random.Generator
    ) -> Iterator[tuple[str, list[Encoded]]]:
        """Batches of every shape that a model must run, each with its name, as in ``batch 7 x length 128``.

        Args:
            encoded: Items of the model, at least one, of which they are made.
            sizes: Of the batches.
            generator: Draws what is random in them.
        """

    def of_one_shape(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """Those that have one shape, or can be cut to it: for quantisers that stack the activations of all batches."""
        return encoded

    @abstractmethod
    def with_length(self, encoded: Sequence[Encoded], length: int) -> list[Encoded]:
        """Brings each item to a length. Without items it says whether that can be, before anything is loaded.

        Raises:
            UsageError: the option ``--length`` isn't for these items, or out of their range.
        """


def preprocessor_class(kind: object) -> type[Preprocessor] | None:
    """The preprocessor of a kind, and what it needs imported; nothing for a kind that isn't known."""
    if kind == "image":
        from trainyard.preprocess.image import ImagePreprocessor

        return ImagePreprocessor
    if kind == "text":
        from trainyard.preprocess.text import TextPreprocessor

        return TextPreprocessor
    return None


def load_preprocessor(settings: Mapping[str, object], folder: Path) -> Preprocessor:
    """Builds a preprocessor from ``to_dict``'s settings and the bundle's folder.

    A bundle is read as it was sealed. What changes in decoding, normalisation or limits is a new key in ``to_dict``,
    and a bundle without the key gets the old behaviour: a default in the constructor never changes. A key that isn't
    known here is of a later release, and is refused: without it the answers would be others.

    Raises:
        BundleError: the settings are of no known kind, have a key that isn't known, or lack one.
    """
    values = {key: value for key, value in settings.items() if key != "kind"}
    found = preprocessor_class(settings.get("kind"))
    if found is None:
        raise BundleError(f"{folder}: preprocessor of unknown kind {settings.get('kind')!r}; update trainyard")
    parameters = inspect.signature(found).parameters
    if unknown := sorted(values.keys() - parameters.keys()):
        raise BundleError(f"{folder}: preprocessor with the unknown setting {unknown[0]!r}; update trainyard")
    # A tokenizer is no setting: it has a file of its own.
    needed = [name for name, one in parameters.items() if one.default is one.empty and name != "tokenizer"]
    if lacking := [name for name in needed if name not in values]:
        raise BundleError(f"{folder}: preprocessor without the setting {lacking[0]!r}; use the original")
    return found.load(values, folder)


def load_sample(record: Mapping[str, object], samples: Path) -> Item:
    """The raw item of a line that ``Preprocessor.store`` gave.

    Args:
        record: The line; it may have other keys besides, such as the label.
        samples: The folder that it was stored in.

    Raises:
        BundleError: the line holds an item of no known kind.
    """
    for kind in record:
        if found := preprocessor_class(kind):
            return found.stored(record, samples)
    raise BundleError(f"{samples} holds a sample of unknown kind ({', '.join(record)}); update trainyard")
