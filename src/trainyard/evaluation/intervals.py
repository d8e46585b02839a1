"""How far a measured share may lie from the true one."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def verdict(gain: float, is_chance: bool) -> str:
    """How one that gains so much over another is called; what may be chance is no difference, whatever it is."""
    return "not distinguishable from" if is_chance else "better than" if gain > 0 else "worse than"


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, JASA 22:209-212).

    Unlike the usual plus or minus, it holds for few trials and for shares near 0 or 1, and stays within them.

    Args:
        successes: Trials that succeeded.
        trials: All trials, at least one.
        z: Quantile of the normal distribution; by default that of a 95 % interval.
    """
    assert 0 <= successes <= trials
    assert trials > 0
    share = successes / trials
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    centre = share + z**2 / (2 * trials)
    scale = 1 + z**2 / trials
    # The ends are 0 and 1 exactly where no or every trial succeeded; rounding would miss them by a hair.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def paired_interval(gained: int, lost: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of the difference of two shares of the same trials (Bonett & Price 2012, JEBS 37:479-488).

    Only trials in which one of them succeeded tell them apart; one more on either side keeps the interval honest where
    there are few.

    Args:
        gained: Trials in which only the first succeeded.
        lost: Trials in which only the second did.
        trials: All trials, at least one.
        z: Quantile of the normal distribution; by default that of a 95 % interval.
    """
    assert 0 <= gained + lost <= trials
    more, less = (gained + 1) / (trials + 2), (lost + 1) / (trials + 2)
    spread = z * math.sqrt((more + less - (more - less) ** 2) / (trials + 2))
    return max(-1.0, more - less - spread), min(1.0, more - less + spread)
