"""Timing calls side by side, so that a busy moment of the machine hurts all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]
"""Gives seconds since any moment."""


@dataclass(frozen=True)
class Timing:
    """How long a call took.

    Attributes:
        seconds: Of each round, in their order.
    """

    seconds: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds that 95 % of the calls stayed below; of fewer than 20 calls, about the slowest."""
        return float(np.percentile(self.seconds, 95))

    @property
    def p99(self) -> float:
        """Seconds that 99 % of the calls stayed below; of fewer than 100 calls, about the slowest."""
        return float(np.percentile(self.seconds, 99))

    @property
    def spread(self) -> float:
        """The interquartile range as a share of the median."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low) / self.p50

    def throughput(self, batch: int) -> float:
        """Examples a second at the median, for calls of ``batch`` examples each."""
        return batch / self.p50


def time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = 5,
    warm_up: int = 2,
    clock: Clock = time.perf_counter,
) -> dict[str, Timing]:
    """Times all calls in turns, A B C A B C ..., until another round wouldn't fit into the time.

    Args:
        calls: By name.
        seconds: Time for everything, rounds that aren't counted included; slow calls may take longer, for the sake of
            ``min_rounds``.
        min_rounds: Rounds to measure at the least.
        warm_up: Most rounds that aren't counted, which pay for caches and the choice of kernels. Slow calls get one.
        clock: For tests.
    """
    assert calls
    assert min_rounds > 0
    start = clock()
    for _ in range(warm_up):
        round_start = clock()
        _one_round(calls, clock)
        if clock() - round_start > seconds / (min_rounds + warm_up):
            break
    rounds: list[dict[str, float]] = []
    longest = 0.0
    while len(rounds) < min_rounds or clock() - start + longest <= seconds:
        rounds.append(_one_round(calls, clock))
        longest = max(longest, sum(rounds[-1].values()))
    return {name: Timing(tuple(one[name] for one in rounds)) for name in calls}


def speedup(timings: Mapping[str, Timing], name: str, reference: str) -> float:
    """How many times as fast as ``reference`` a call is: the median of the ratios within each round.

    The calls of a round lay side by side and met the same machine: noise moves their ratio less than each median.

    Args:
        timings: Of ``time_in_turns``.
    """
    pairs = zip(timings[reference].seconds, timings[name].seconds, strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def _one_round(calls: Mapping[str, Callable[[], object]], clock: Clock) -> dict[str, float]:
    taken = {}
    for name, call in calls.items():
        start = clock()
        call()
        taken[name] = clock() - start
    return taken
