"""A teacher's answers as training targets: a share of each, from texts other than the one it is asked of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trainyard.base.errors import UsageError
from trainyard.config.load import load_experiment
from trainyard.data.records import Records

from my_project.distil import distilled

CONFIGS = Path(__file__).parents[3] / "configs"


def records(odd: str) -> Records:
    """Twenty letters, twenty bills, and one that says the contrary of its label."""
    texts = [f"{thing} number {i}" for i in range(20) for thing in ("letter", "bill")]
    labels = [i % 2 for i in range(40)]
    return Records([*texts, odd], np.array([*labels, 1]), ["here"] * 41)


def test_the_teacher_has_not_seen_the_text_that_it_is_asked_of() -> None:
    targets = distilled(records("letter number 99"), classes=2, share=0.5)

    assert targets is not None
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(41))
    assert targets[:40].argmax(dim=1).tolist() == [0, 1] * 20
    # Half is the label's, and nearly all of the other half says that it is a letter.
    assert 0.5 < targets[40, 1] < 0.65


def test_nothing_is_asked_without_a_share() -> None:
    assert distilled(records("letter"), classes=2, share=0.0) is None


def test_few_texts_and_images_are_refused() -> None:
    with pytest.raises(UsageError, match="needs 5 training texts of each class, one has 0"):
        distilled(records("letter"), classes=3, share=0.5)
    with pytest.raises(UsageError, match="optim.distil is for texts: with data.kind=images"):
        load_experiment(CONFIGS / "digits_resnet.yaml", ["optim.distil=0.5"])
