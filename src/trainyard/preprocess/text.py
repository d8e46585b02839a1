"""Texts: to token ids and padded batches, and what others need to know of a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError, UsageError
from trainyard.preprocess.base import Encoded, Inputs, Item, Kind, Preprocessor

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SYNTHETIC_LENGTH = 32
"""Tokens of a synthetic text."""
SHAPE_LENGTHS = (1, 16, 128, 512)
"""Tokens of the texts that every format must run, each in every size of batch."""
PADDED_LENGTHS = (16, 64, 128)
"""Tokens that texts are padded to, and then to ``max_length``."""
PADDED, PADDED_FULL = 8, 4
"""Items that are padded to ``PADDED_LENGTHS``, and to ``max_length``, where each costs the most."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class TextPreprocessor(Preprocessor):
    """Turns texts, or pairs of texts, into padded token ids with a Hugging Face ``tokenizers`` tokenizer.

    Args:
        tokenizer: With its normaliser, pre-tokeniser, model and post-processor; truncation and padding are set here.
        max_length: Tokens kept of an item, special tokens included.
        pad_id: Token id that fills short rows; masked by ``attention_mask``.
        segments: Whether the model takes ``token_type_ids`` (BERT does, RoBERTa and GPT-2 don't).
    """

    kind: ClassVar[Kind] = "text"
    dynamic_dimensions: ClassVar[Mapping[int, str]] = {0: "batch", 1: "length"}
    calibration_batch: ClassVar[int] = 1
    synthetic_name: ClassVar[str] = "random tokens"
    unit: ClassVar[str] = "characters"
    budget: ClassVar[int] = 1_000_000

    def __init__(self, tokenizer: Tokenizer, max_length: int, pad_id: int = 0, segments: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        self.segments = segments

    def encode(self, item: Item) -> NDArray[np.int32]:
        """Gives ``[1, length] int32`` token ids, or ``[2, length]`` with the segment ids below.

        Raises:
            ItemError: the text is empty, or not a text.
        """
        return self.encode_many([item])[0]

    def cost(self, item: Item) -> int:
        """Its characters: the tokenizer goes through all of them, also where the model reads the first few alone."""
        return sum(len(part) for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, str))

    def encode_many(self, items: Iterable[Item]) -> list[NDArray[np.int32]]:
        """Encodes all items over all cores; the same answers as ``encode`` one by one."""
        texts = [_clean_text(item) for item in items]
        return [
            np.asarray([row.ids, row.type_ids] if self.segments else [row.ids], dtype=np.int32)
            for row in self.tokenizer.encode_batch_fast(texts)
        ]

    def collate(self, encoded: Sequence[Encoded]) -> Inputs:
        """Pads to the longest: ``input_ids``, ``attention_mask`` (``token_type_ids``), ``[batch, length] int64``."""
        longest = max(row.shape[1] for row in encoded)
        tokens = np.zeros((2, len(encoded), longest), dtype=np.int64)
        tokens[0] = self.pad_id
        mask = np.zeros((len(encoded), longest), dtype=np.int64)
        for i, row in enumerate(encoded):
            tokens[: len(row), i, : row.shape[1]] = row
            mask[i, : row.shape[1]] = 1
        inputs: Inputs = {"input_ids": tokens[0], "attention_mask": mask}
        return inputs | {"token_type_ids": tokens[1]} if self.segments else inputs

    def to_dict(self) -> dict[str, object]:
        """The settings, as ``trainyard.json`` keeps them; the tokenizer has a file of its own."""
        return {"kind": self.kind, "max_length": self.max_length, "pad_id": self.pad_id, "segments": self.segments}

    def save(self, folder: Path) -> None:
        """Writes ``tokenizer.json``."""
        self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, settings: Mapping[str, object], folder: Path) -> TextPreprocessor:
        """Builds it from ``to_dict``'s settings and ``tokenizer.json``; see ``load_preprocessor``."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), **settings)  # type: ignore[arg-type]

    def store(self, item: Item, samples: Path, name: str) -> dict[str, object]:
        """A text stands in the line itself, as the tokenizer sees it; a pair as a list."""
        if isinstance(item, tuple):
            return {"text": [without_surrogates(text) for text in item]}
        return {"text": without_surrogates(str(item))}

    @classmethod
    def stored(cls, record: Mapping[str, object], samples: Path) -> str | tuple[str, str]:
        """The text or pair in the line."""
        text = record["text"]
        return (str(text[0]), str(text[1])) if isinstance(text, list) else str(text)

    def synthetic(self, count: int, generator: np.random.Generator) -> list[Encoded]:
        """Tokens of the whole vocabulary, up to ``SYNTHETIC_LENGTH``, of the first segment."""
        length = min(SYNTHETIC_LENGTH, self.max_length)
        tokens = np.zeros((count, 2 if self.segments else 1, length), np.int32)
        tokens[:, 0] = generator.integers(0, self.tokenizer.get_vocab_size(), (count, length))
        return list(tokens)

    def measures(self, encoded: Encoded) -> dict[str, float]:
        """The length in tokens and, unless the vocabulary knows everything, which share of them it doesn't."""
        length = {"length": float(encoded.shape[1])}
        return length if self._unknown is None else {**length, "unknown": float((encoded[0] == self._unknown).mean())}

    @cached_property
    def _unknown(self) -> int | None:
        """The token that stands for what isn't in the vocabulary; none where bytes do, as in GPT-2 and RoBERTa.

        The models of `tokenizers` write it in their files under two names, and only some tell it in Python.
        """
        model = json.loads(self.tokenizer.to_str())["model"]
        if isinstance(unknown := model.get("unk_id"), int):
            return unknown
        return self.tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None

    def extremes(self, encoded: Sequence[Encoded], generator: np.random.Generator) -> list[Encoded]:
        """The longest."""
        return [max(encoded, key=lambda row: row.shape[1])]

    def widest(self, encoded: Sequence[Encoded], generator: np.random.Generator) -> list[Encoded]:
        """A text of ``max_length``."""
        return [_shuffled_tokens(encoded, self.max_length, generator)]

    def paddings(self, encoded: Sequence[Encoded]) -> Iterator[tuple[int, Inputs]]:
        """Pads some, spread from the shortest to the longest, to ``PADDED_LENGTHS`` and to ``max_length``."""
        lengths = [row.shape[1] for row in encoded]
        order = np.argsort(lengths, kind="stable")
        chosen = order[np.unique(np.linspace(0, len(encoded) - 1, PADDED).astype(np.int64))].tolist()
        short = [(i, length) for length in PADDED_LENGTHS if length < self.max_length for i in chosen]
        full = [(i, self.max_length) for i in chosen[:PADDED_FULL]]
        for i, length in (*short, *full):
            if length > lengths[i]:
                yield i, self._padded(self.collate([encoded[i]]), length)

    def _padded(self, inputs: Inputs, length: int) -> Inputs:
        """Pads ``[batch, less] int64`` to ``[batch, length]``, as a longer neighbour would: no mask, first segment."""
        fill = {"input_ids": self.pad_id}
        return {
            name: np.pad(
                array.astype(np.int64), ((0, 0), (0, length - array.shape[1])), constant_values=fill.get(name, 0)
            )
            for name, array in inputs.items()
        }

    def shapes(
        self, encoded: Sequence[Encoded], sizes: Sequence[int], generator: np.random.Generator
    ) -> Iterator[tuple[str, list[Encoded]]]:
        """Of each size one of each length of ``SHAPE_LENGTHS``: its first text is so long, the others are padded."""
        for size in sizes:
            for length in sorted({min(length, self.max_length) for length in SHAPE_LENGTHS}):
                lengths = [length, *generator.integers(1, length, size - 1, endpoint=True)]
                yield f"batch {size} x length {length}", [_shuffled_tokens(encoded, n, generator) for n in lengths]

    def of_one_shape(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """Cuts those that are as long as the median, or longer, to its length."""
        length = int(np.median([row.shape[1] for row in encoded]))
        return [row[:, :length] for row in encoded if row.shape[1] >= length]

    def with_length(self, encoded: Sequence[Encoded], length: int) -> list[Encoded]:
        """Repeats or cuts the tokens between the first and the last, which models take for marks of start and end.

        Args:
            encoded: Tokens ``[1 or 2, any length] int32`` each.
            length: Tokens of each result.

        Raises:
            UsageError: no text of this model has this length.
        """
        if not 0 < length <= self.max_length:
            raise UsageError(f"--length={length}: this model takes 1 to {self.max_length} tokens; choose fewer")
        return [row[:, _stretched(row.shape[1], length)] for row in encoded]


def _shuffled_tokens(encoded: Sequence[Encoded], length: int, generator: np.random.Generator) -> NDArray[np.int32]:
    """Tokens of the items in any order, each with its segment: ``[1 or 2, length] int32``."""
    tokens = np.concatenate(encoded, axis=1).astype(np.int32)
    return tokens[:, generator.integers(0, tokens.shape[1], length)]


def _stretched(found: int, length: int) -> list[int]:
    """Places of ``found`` tokens that make up ``length``."""
    last = found - 1
    between = range(1, last) if last > 1 else range(last + 1)
    return [0, *islice(cycle(between), max(0, length - 2)), last][:length]


def _clean_text(item: Item) -> str | tuple[str, str]:
    parts = item if isinstance(item, tuple) else (item,)
    if not all(isinstance(part, str) for part in parts):
        raise ItemError(f"a text is a string or a pair of strings, not {type(parts[0]).__name__}")
    if not any(part.strip() for part in parts if isinstance(part, str)):
        raise ItemError("the text is empty")
    texts = [without_surrogates(str(part)) for part in parts]
    return (texts[0], texts[1]) if len(texts) > 1 else texts[0]


def without_surrogates(text: str) -> str:
    """Replaces lone surrogates by U+FFFD: half an emoji, as JSON may hold it, isn't Unicode, and tokenizers raise."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def as_text(item: Item) -> str:
    """What is shown of a text or of a pair of texts."""
    return without_surrogates(" | ".join(item) if isinstance(item, tuple) else str(item))
