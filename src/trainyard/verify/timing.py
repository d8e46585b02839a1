"""Timing calls side by side, so that a busy moment of the machine hurts all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]
Clock = Callable[[], float]
"""Gives seconds since any moment."""

TURN = 0.05
"""Seconds of a turn that are filled with calls, as far as ``MOST_CALLS`` go: of short calls, more are seen."""
MOST_CALLS = 10
SLOW = 0.1
"""Seconds of a call that needs no other one before it: what it pays for cold caches is lost in it."""
PAUSE, PAUSES = 0.01, 20
"""Seconds between two looks at whether this process rests, and how many looks there are at most."""


@dataclass(frozen=True)
class Timing:
    """How long a call took.

    Attributes:
        seconds: Of each call, in their order.
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


def wait_until_idle() -> None:
    """Waits until the threads of the last call sleep.

    With two threads on two cores, ONNX Runtime's were seen to spin for 40 ms after a call, in the hope of another, and
    OpenMP's for 10 ms. Whatever runs then has a core less.
    """
    for _ in range(PAUSES):
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < PAUSE / 10:
            return


def time_in_turns(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    min_rounds: int = 5,
    warm_up: int = 2,
    clock: Clock = time.perf_counter,
    settle: Callable[[], None] = wait_until_idle,
) -> dict[str, Timing]:
    """Times all calls in turns, A B C A B C ..., until another round wouldn't fit into the time.

    In its turn, a short call is made several times, as often as every other; the first time, which pays for caches that
    the others have filled, isn't counted.

    Args:
        calls: By name.
        seconds: Time for everything, rounds that aren't counted included; slow calls may take longer, for the sake of
            ``min_rounds``.
        min_rounds: Rounds to measure at the least.
        warm_up: Most rounds that aren't counted, at least one. Slow calls get one.
        clock: For tests.
        settle: Is called before each turn.
    """
    assert calls
    assert min_rounds > 0
    assert warm_up > 0
    start = clock()
    last = _warm_up(calls, warm_up, seconds / (min_rounds + warm_up), clock)
    per_turn = max(1, min(MOST_CALLS, int(TURN / max(*last.values(), 1e-6))))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    longest = 0.0
    rounds = 0
    while rounds < min_rounds or clock() - start + longest <= seconds:
        round_start = clock()
        for name, call in calls.items():
            settle()
            if last[name] < SLOW:
                call()
            taken[name] += [_seconds(call, clock) for _ in range(per_turn)]
        longest = max(longest, clock() - round_start)
        rounds += 1
    return {name: Timing(tuple(one)) for name, one in taken.items()}


def speedup(timings: Mapping[str, Timing], name: str, reference: str) -> float:
    """How many times as fast as ``reference`` a call is: the median of the ratios within a round.

    The calls of a round lay side by side and met the same machine: noise moves their ratio less than each median.

    Args:
        timings: Of ``time_in_turns``, which makes as many calls of each: the nth of one was in the round of the nth of
            every other.
    """
    pairs = zip(timings[reference].seconds, timings[name].seconds, strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def _warm_up(calls: Mapping[str, Call], rounds: int, enough: float, clock: Clock) -> dict[str, float]:
    """Seconds of each call in the last of the rounds; there is no other after one that took longer than ``enough``."""
    for _ in range(rounds):
        last = {name: _seconds(call, clock) for name, call in calls.items()}
        if sum(last.values()) > enough:
            break
    return last


def _seconds(call: Call, clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
