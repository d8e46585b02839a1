"""A simple model as the teacher of a network that sees too few texts to find out by itself what is chance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainyard.base.errors import UsageError
from trainyard.data.records import Records

FOLDS = 5
STRENGTH = 3.0
"""How far the teacher may go to fit what it learns from."""


def distilled(records: Records, classes: int, share: float) -> Tensor | None:
    """Targets ``[examples, classes] float32``: the labels, but for a ``share`` that a teacher gives; ``None`` at 0.

    The teacher of a text is a logistic regression on the words and letters of four fifths of the others. One that had
    seen the text would say the label again, and no more.

    Raises:
        UsageError: a class has too few texts to be found in every fifth.
    """
    if not share:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline, make_union

    fewest = int(np.bincount(records.labels, minlength=classes).min())
    if fewest < FOLDS:
        raise UsageError(
            f"optim.distil needs {FOLDS} training texts of each class, one has {fewest}: set optim.distil=0"
        )
    texts = [" ".join(item) if isinstance(item, tuple) else str(item) for item in records.items]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    teacher = make_pipeline(make_union(words, letters), LogisticRegression(C=STRENGTH, max_iter=100))
    answers = cross_val_predict(teacher, texts, records.labels, cv=FOLDS, method="predict_proba")
    labels = functional.one_hot(torch.from_numpy(records.labels), classes)
    return (1 - share) * labels.float() + share * torch.from_numpy(answers).float()
