"""A teacher's answers as training targets: a share of each, from texts other than the one it is asked of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainyard.data.records import Records
from trainyard.training import distil
from trainyard.training.distil import distilled


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


def test_with_a_lonely_text_or_too_many_there_is_no_teacher(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert distilled(records("letter"), classes=3, share=0.5) is None
    monkeypatch.setattr(distil, "MOST_TEXTS", 40)
    assert distilled(records("letter"), classes=2, share=0.5) is None
    assert [record.getMessage() for record in caplog.records] == [
        "optim.distil is left out: a class has 0 training texts",
        "optim.distil is left out: there are over 40 texts",
    ]


def test_two_texts_of_a_class_are_enough() -> None:
    few = Records(["a letter", "the letter", "a bill", "the bill"], np.array([0, 0, 1, 1]), ["here"] * 4)

    targets = distilled(few, classes=2, share=0.5)

    assert targets is not None
    assert targets.argmax(dim=1).tolist() == [0, 0, 1, 1]
