"""What simple models reach on the same splits, in seconds: whether the network was worth its while."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.encoded import encode_split
from trainyard.data.records import Records
from trainyard.evaluation.intervals import paired_interval, verdict
from trainyard.evaluation.shown import read_pixels
from trainyard.preprocess.base import Preprocessor
from trainyard.preprocess.text import as_text

MAX_EXAMPLES = 10_000
"""Examples to learn from, and as many to be scored on: more would hardly be better, and take minutes."""
MAX_DECODED = 1_000
"""The same, of images whose pixels aren't cached."""
MAX_COEFFICIENTS = 1_000_000
"""Words times classes, by which the time of learning grows."""
MAX_ITERATIONS = 200
SIDE = 16
"""Of the grey images that the linear model sees."""
LINEAR = {"texts": "TF-IDF with logistic regression", "images": "logistic regression on small grey pixels"}
TOKEN = r"\w+|[^\w\s]"
"""Also of one character, so that no text is without any."""


class Baseline(BaseModel):
    """The better of two simple models, and how much better the trained one is; ``metrics.json`` has it.

    Attributes:
        name: What it is.
        accuracy: Its share of right answers to ``test_examples`` of the test split.
        macro_f1: Over the classes that occur.
        majority: The accuracy of always answering the class that is most frequent in training.
        gain: The trained model's accuracy on the same examples, minus this one's.
        gain_interval: Its 95 % interval.
        train_examples: Examples that it learnt from.
    """

    name: str
    accuracy: float
    macro_f1: float
    majority: float
    gain: float
    gain_interval: tuple[float, float]
    train_examples: int
    test_examples: int

    @property
    def verdict(self) -> str:
        """Whether the trained model is better or worse than it."""
        low, high = self.gain_interval
        return verdict(self.gain, low <= 0 <= high)


def measure_baseline(
    train: Records,
    test: Records,
    preprocessor: Preprocessor,
    data: ImagesConfig | TextsConfig,
    predicted: NDArray[np.int64],
) -> Baseline:
    """Fits simple models on the training split, or a sample of it, and compares the trained one with the better.

    Args:
        train: What to learn from.
        test: What to be scored on.
        preprocessor: The trained model's, by which images are cached.
        data: Where they are.
        predicted: The trained model's answers to ``test``, ``[examples] int64``.
    """
    from sklearn.metrics import f1_score

    cached = isinstance(data, TextsConfig) or (test.decoded is not None and train.decoded is not None)
    most = MAX_EXAMPLES if cached else MAX_DECODED
    train_rows, test_rows = _sample(len(train), most), _sample(len(test), most)
    learnt, truth, predicted = train.labels[train_rows], test.labels[test_rows], predicted[test_rows]
    frequent = int(np.bincount(train.labels).argmax())
    name, answers = "always the most frequent class", np.full(len(truth), frequent)
    if len(np.unique(learnt)) > 1:
        seen, asked = (_inputs(part, preprocessor, data) for part in (train.select(train_rows), test.select(test_rows)))
        fitted = _linear(seen, asked, learnt)
        if (fitted == truth).mean() >= (answers == truth).mean():
            name, answers = LINEAR[data.kind], fitted
    ours, theirs = predicted == truth, answers == truth
    return Baseline(
        name=name,
        accuracy=float(theirs.mean()),
        macro_f1=float(f1_score(truth, answers, average="macro", zero_division=0)),
        majority=float((test.labels == frequent).mean()),
        gain=float(ours.mean() - theirs.mean()),
        gain_interval=paired_interval(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(truth)),
        train_examples=len(learnt),
        test_examples=len(truth),
    )


def _sample(count: int, most: int) -> NDArray[np.int64]:
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(0).permutation(count)[:most])


def _inputs(part: Records, preprocessor: Preprocessor, data: ImagesConfig | TextsConfig) -> Any:
    """Texts, or small grey images ``[examples, pixels] float64`` from 0 to 1."""
    if isinstance(data, TextsConfig):
        return [as_text(item) for item in part.items]
    split = encode_split(part, preprocessor, data, training=False)
    grey = (Image.fromarray(pixels).convert("L") for pixels in read_pixels(split, np.arange(len(part))))
    return np.stack([np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel() / 255 for one in grey])


def _linear(train: Any, test: Any, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A linear model's answers; what it may be fitted to, words can bear more of than pixels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS)
    if isinstance(train, list):
        words = max(1_000, MAX_COEFFICIENTS // len(np.unique(labels)))
        counted = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, max_features=words)
        model = make_pipeline(counted, model.set_params(C=10.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly the best is as good for a baseline
        return np.asarray(model.fit(train, labels).predict(test))
