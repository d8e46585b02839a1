"""How far live traffic is from the reference: chance isn't drift, and what is another thing is one."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from trainyard.artifacts.bundle import BundleFacts
from trainyard.artifacts.drift import Bins, DriftReference

RNG = np.random.default_rng(0)


def answers(labels: NDArray[np.int64], classes: int, confidence: float = 0.9) -> NDArray[np.float32]:
    rows = np.full((len(labels), classes), (1 - confidence) / (classes - 1), np.float32)
    rows[np.arange(len(labels)), labels] = confidence
    return rows


@pytest.mark.parametrize("examples", [200, 1000, 5000])
@pytest.mark.parametrize("live", [200, 1000])
def test_what_is_drawn_alike_is_no_drift(examples: int, live: int) -> None:
    draws = (RNG.normal, RNG.exponential, partial(RNG.integers, 5, 30), lambda size: RNG.beta(9, 1, size).round(1))
    for draw in draws:
        found = [Bins.of(draw(size=examples)).psi(draw(size=live)) for _ in range(20)]
        assert max(found) < 0.25
        assert np.mean(found) < 0.06, "what chance gives is taken off"


@pytest.mark.parametrize("live", [[0.6] * 200, [0.0] * 200, np.linspace(0.3, 0.34, 200)])
def test_another_value_is_drift(live: object) -> None:
    assert Bins.of(np.linspace(0.3, 0.5, 90)).psi(live) > 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [0.499, 0.501])
def test_a_reference_that_never_differs_knows_both_sides_of_it(other: float) -> None:
    bins = Bins.of([0.5] * 100)

    assert bins.psi([0.5] * 200) < 0.01
    assert bins.psi([other] * 200) > 1


def test_formats_that_differ_behind_the_third_decimal_are_alike() -> None:
    values = RNG.random(1000).round(3)

    assert Bins.of(values).psi(values + 4e-4) == 0


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_many_classes_arent_drift_and_another_one_is(classes: int) -> None:
    shares = RNG.dirichlet(np.ones(classes))
    reference = DriftReference.of(answers(RNG.choice(classes, 500, p=shares), classes), {})

    assert reference.labels_psi(RNG.choice(classes, 300, p=shares).tolist()) < 0.1
    rarest = reference.frequent(classes)[-1]
    assert reference.labels_psi([rarest] * 300) > 0.5


def test_it_is_kept_in_the_bundle_as_it_was() -> None:
    reference = DriftReference.of(answers(RNG.integers(0, 3, 50), 3, 0.75), {"length": RNG.integers(1, 9, 50)})
    facts = BundleFacts.model_construct(drift_reference=json.loads(reference.model_dump_json()))

    assert DriftReference.read(facts) == reference
    assert (reference.split, reference.examples, reference.mean_confidence) == ("test", 50, 0.75)


def test_an_earlier_releases_isnt_compared() -> None:
    old = {"examples": 512, "inputs": {}, "predicted_share": {"a": 1.0}, "confidence_histogram": [1.0] * 10}

    assert DriftReference.read(BundleFacts.model_construct(drift_reference=old)) is None
    assert DriftReference.read(BundleFacts.model_construct(drift_reference={})) is None
