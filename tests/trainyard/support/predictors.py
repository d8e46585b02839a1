"""Predictors of images and texts around models that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from trainyard.artifacts.bundle import Bundle
from trainyard.inference import selection
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Inputs
from trainyard.preprocess.text import TextPreprocessor


class SumModel:
    """Logits that follow from the sum of an item's pixels or token ids; counts its calls.

    Attributes:
        calls: Sizes of the batches.
        broken: Items whose sum is one of these have no finite output.
    """

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.broken: set[int] = set()

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        items = inputs["images"] if "images" in inputs else inputs["input_ids"]
        sums = items.reshape(len(items), -1).sum(axis=1, dtype=np.int64)
        self.calls.append(len(items))
        logits = np.sin(sums[:, None] * np.arange(1, 11) / 7).astype(np.float32)
        logits[np.isin(sums, list(self.broken))] = np.nan
        return logits


@pytest.fixture
def sum_model() -> Iterator[SumModel]:
    """What the predictors below run."""
    model = SumModel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "open_runtime", lambda *_: model)
        yield model


@pytest.fixture
def image_predictor(digits_run: Path, sum_model: SumModel) -> Predictor:
    """Ten classes of images of 8 x 8 pixels."""
    return Predictor(Bundle.open(digits_run), warm_up=False)


@pytest.fixture
def text_predictor(digits_run: Path, sum_model: SumModel) -> Predictor:
    """Ten classes of texts; ``late`` is token 2, ``parcel`` 3, and all else 1."""
    bundle = Bundle.open(digits_run)
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "late": 2, "parcel": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    texts = replace(bundle, facts=bundle.facts.model_copy(update={"task": "text-classification"}))
    texts.__dict__["preprocessor"] = TextPreprocessor(tokenizer, max_length=8)
    return Predictor(texts, warm_up=False)
