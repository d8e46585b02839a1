"""Wilson's interval against published figures."""

import pytest

from trainyard.evaluation.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_interval_matches_published_figures(successes: int, trials: int, low: float, high: float) -> None:
    # The worked examples of Newcombe 1998 (Statistics in Medicine 17:857-872), table I, method 3.
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
