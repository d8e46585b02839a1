"""A simple model as the teacher of a network that sees too few texts to find out by itself what is chance."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainyard.data.records import Records

log = logging.getLogger(__name__)

FOLDS = 5
MOST_TEXTS = 50_000
"""More take the teacher minutes, and teach a network by themselves."""
STRENGTH = 3.0
"""How far the teacher may go to fit what it learns from."""


def distilled(records: Records, classes: int, share: float) -> Tensor | None:
    """Targets ``[examples, classes] float32``: the labels, but for a ``share`` that a teacher gives.

    The teacher of a text is a logistic regression on the words and letters of four fifths of the others. One that had
    seen the text would say the label again, and no more (Hinton et al. 2015 is the method's source).

    Returns:
        The targets; ``None`` where the share is 0, there are too many texts, or a class has but one.
    """
    if not share:
        return None
    fewest = int(np.bincount(records.labels, minlength=classes).min())
    if fewest < 2 or len(records.labels) > MOST_TEXTS:
        why = f"there are over {MOST_TEXTS:,} texts" if fewest >= 2 else f"a class has {fewest} training texts"
        log.warning("optim.distil is left out: %s", why)
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline, make_union

    texts = [" ".join(item) if isinstance(item, tuple) else str(item) for item in records.items]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    teacher = make_pipeline(make_union(words, letters), LogisticRegression(C=STRENGTH, max_iter=100))
    answers = cross_val_predict(teacher, texts, records.labels, cv=min(FOLDS, fewest), method="predict_proba")
    labels = functional.one_hot(torch.from_numpy(records.labels), classes)
    return (1 - share) * labels.float() + share * torch.from_numpy(answers).float()
