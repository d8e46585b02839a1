"""Calls are timed in turns within a time; what noise does to both cancels out. A clock of our own tells the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

import pytest

from trainyard.export.timing import Timing, speedup, time_in_turns


class Bench:
    """A clock that stands still but for the calls, which take the seconds that they are told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: Iterable[float]) -> Callable[[], None]:
        durations = iter(seconds)

        def run() -> None:
            self.order.append(name)
            self.now += next(durations)

        return run


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_calls_take_turns_and_the_warm_up_is_not_counted(bench: Bench) -> None:
    calls = {"a": bench.call("a", [3, 3, 1, 2, 4]), "b": bench.call("b", [3, 3, 3, 3, 3])}

    timed = time_in_turns(calls, seconds=34, min_rounds=3, warm_up=2, clock=bench.clock)

    assert "".join(bench.order) == "ab" * 5
    assert (timed["a"].seconds, timed["b"].seconds) == ((1, 2, 4), (3, 3, 3))


def test_rounds_fill_the_time_and_no_more(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(0.25)), "b": bench.call("b", repeat(0.5))}

    timed = time_in_turns(calls, seconds=10, clock=bench.clock)

    assert len(timed["a"].seconds) == len(timed["b"].seconds) == 11
    assert bench.now - 100 == 13 * 0.75, "a 14th round would have ended after 10 seconds"


def test_the_slowest_round_says_whether_another_fits(bench: Bench) -> None:
    calls = {"a": bench.call("a", [1, 1, 4, *repeat(1, 99)])}

    timed = time_in_turns(calls, seconds=12, min_rounds=1, warm_up=0, clock=bench.clock)

    assert sum(timed["a"].seconds) == bench.now - 100 == 9


def test_slow_calls_get_the_fewest_rounds_and_one_to_warm_up(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(30))}

    timed = time_in_turns(calls, seconds=10, min_rounds=5, warm_up=3, clock=bench.clock)

    assert timed["a"].seconds == (30,) * 5
    assert len(bench.order) == 6


def test_a_call_that_fails_is_not_hidden(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        time_in_turns({"a": bench.call("a", repeat(1)), "b": fail}, seconds=1, clock=bench.clock)


def test_figures_of_a_timing() -> None:
    timing = Timing(tuple(i / 1000 for i in range(101)))

    assert timing.p50 == 0.050
    assert timing.p95 == pytest.approx(0.095)
    assert timing.p99 == pytest.approx(0.099)
    assert timing.spread == pytest.approx(0.050 / 0.050)
    assert timing.throughput(8) == 160
    assert Timing((0.25,) * 5).spread == 0


def test_speedup_is_the_median_of_the_ratios_of_each_round() -> None:
    """The machine got slower by the round: the ratio of the medians would say 4."""
    timings = {"eager": Timing((2, 4, 32)), "onnx": Timing((1, 1, 16))}

    assert speedup(timings, "onnx", "eager") == 2
    assert speedup(timings, "eager", "eager") == 1
