"""A head that isn't ours: whoever makes, scores or compares answers asks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainyard.artifacts.bundle import Bundle
from trainyard.heads.base import Prediction, answer_row
from trainyard.heads.scores import Scores
from trainyard.heads.single_label import SingleLabel
from trainyard.heads.table import HEADS, head_of
from trainyard.inference.predictor import Predictor
from trainyard.verify.gate import Gate, judge

Floats = NDArray[np.float32]


class Signs(SingleLabel):
    """Answers each class by itself, as for several labels: a format agrees if it keeps every logit's sign."""

    name = "signs"

    def probabilities(self, logits: Floats) -> Floats:
        return np.float32(1) / (np.float32(1) + np.exp(-logits))

    def answer(self, probabilities: Floats, labels: Sequence[str], top_k: int) -> Prediction:
        found = [(labels[i], float(probabilities[i])) for i in np.flatnonzero(probabilities > 0.5)]
        return Prediction("+".join(label for label, _ in found), 1.0, found)

    def compared(self, scores: Scores) -> dict[str, float]:
        return {"calibration": 1 - scores.ece}

    def agrees(self, logits: Floats, reference: Floats) -> NDArray[np.bool_]:
        return ((logits > 0) == (reference > 0)).all(axis=1)


def test_a_bundle_says_its_head_and_the_predictor_asks_it(digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(digits_run)
    assert isinstance(head_of(bundle), SingleLabel)
    monkeypatch.setitem(HEADS, "classification", Signs())
    item = min((bundle.path / "samples" / "golden").iterdir())

    predictor = Predictor(bundle)
    probabilities = predictor.probabilities([item])[0]
    [answer] = predictor.predict([item])

    # No softmax: each is above a half by itself, and the answer is all of those.
    above = [label for label, value in zip(bundle.labels, probabilities, strict=True) if value > 0.5]
    assert answer_row(answer)["label"] == "+".join(above)
    assert probabilities.sum() != pytest.approx(1, abs=1e-3)


def test_the_gate_compares_what_the_head_says() -> None:
    reference = np.array([[3, 1], [1, 3]] * 10, np.float32)
    labels = np.arange(20) % 2
    swapped, negative = reference[:, ::-1].copy(), reference - 2  # the first changes every class, the second no class

    first, second = (judge(Signs(), "onnx-int8", rows, reference, labels, "ab", Gate()) for rows in (swapped, negative))

    assert first.agreement == 1.0
    assert [reason.split()[0] for reason in first.reasons] == ["calibration"]
    assert second.agreement == 0.0
    assert second.reasons == ("only 0 of 20 examples get eager's class, and 98 % must",)
