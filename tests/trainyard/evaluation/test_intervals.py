"""The intervals against published figures, and against chance."""

import numpy as np
import pytest

from trainyard.evaluation.intervals import paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_interval_matches_published_figures(successes: int, trials: int, low: float, high: float) -> None:
    # The worked examples of Newcombe 1998 (Statistics in Medicine 17:857-872), table I, method 3.
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("trials", "both", "first", "second"), [(40, 0.7, 0.15, 0.05), (300, 0.9, 0.06, 0.02)])
def test_the_paired_interval_covers_the_true_difference(trials: int, both: float, first: float, second: float) -> None:
    outcomes = [both, first, second, 1 - both - first - second]
    drawn = np.random.default_rng(1).multinomial(trials, outcomes, size=2000)
    intervals = [paired_interval(gained, lost, trials) for _, gained, lost, _ in drawn.tolist()]
    covered = np.mean([low <= first - second <= high for low, high in intervals])
    assert 0.94 <= covered <= 0.98


def test_the_paired_interval_admits_that_little_is_known() -> None:
    assert paired_interval(0, 0, 300) == pytest.approx((-0.0092, 0.0092), abs=5e-4)
    low, high = paired_interval(1, 0, 1)
    assert (low < -0.5, high) == (True, 1), "one example tells nothing"
    low, high = paired_interval(7, 2, 90)
    assert paired_interval(2, 7, 90) == pytest.approx((-high, -low))
