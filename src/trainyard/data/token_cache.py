"""Token ids of texts: encoded once per machine, found again by content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from trainyard.data.cache import build_once, cache_folder, load_array
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import TextPreprocessor

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the cache's files change their meaning."""
CHUNK = 20_000
"""Texts that are encoded at a time: what the tokenizer returns takes far more memory than the ids."""


@dataclass(frozen=True)
class TokenCache:
    """Token ids of many texts, end to end.

    Attributes:
        tokens: ``[1 or 2, total] int32``: ids, and segments below if the model takes them.
        offsets: ``[texts + 1] int64``: where each text starts.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __getitem__(self, text: int) -> NDArray[np.int32]:
        """The tokens of a text, as the preprocessor encodes it."""
        return self.tokens[:, self.offsets[text] : self.offsets[text + 1]]


def encode_texts(texts: Sequence[Item], preprocessor: TextPreprocessor, cache: str) -> TokenCache:
    """Encodes texts, or reads what an earlier run or another process encoded.

    Args:
        texts: None of them empty.
        preprocessor: With its tokenizer.
        cache: ``data.cache``.
    """
    folder = cache_folder(cache, "tokens", _key(texts, preprocessor))
    build_once(folder, lambda temporary: _encode_all(texts, preprocessor, temporary))
    tokens = cast("NDArray[np.int32]", load_array(folder / "tokens.npy"))
    return TokenCache(tokens, np.load(folder / "offsets.npy"))


def _key(texts: Sequence[Item], preprocessor: TextPreprocessor) -> str:
    settings = [FORMAT, preprocessor.tokenizer.to_str(), preprocessor.max_length, preprocessor.segments]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for text in texts:
        # JSON keeps apart what joining would mix: ("a b", "c") and ("a", "b c").
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()[:32]


def _encode_all(texts: Sequence[Item], preprocessor: TextPreprocessor, folder: Path) -> None:
    parts: list[NDArray[np.int32]] = []
    lengths = [0]
    for start in range(0, len(texts), CHUNK):
        rows = preprocessor.encode_many(texts[start : start + CHUNK])
        lengths += [row.shape[1] for row in rows]
        parts.append(np.concatenate(rows, axis=1))
        if len(texts) > CHUNK:
            log.info("tokenised %s of %s texts", f"{start + len(rows):,}", f"{len(texts):,}")
    np.save(folder / "tokens.npy", np.concatenate(parts, axis=1))
    np.save(folder / "offsets.npy", np.cumsum(lengths, dtype=np.int64))
