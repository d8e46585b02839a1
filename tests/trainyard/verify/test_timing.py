"""Calls are timed in turns within a time; what noise does to both cancels out. A clock of our own tells the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat

import pytest

from trainyard.verify.timing import Timing, speedup, time_in_turns, wait_until_idle


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

    def time(self, calls: Mapping[str, Callable[[], None]], seconds: float, **options: int) -> dict[str, Timing]:
        return time_in_turns(calls, seconds=seconds, clock=self.clock, settle=lambda: self.order.append("."), **options)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_calls_take_turns_and_the_warm_up_is_not_counted(bench: Bench) -> None:
    calls = {"a": bench.call("a", [3, 3, 1, 2, 4]), "b": bench.call("b", [3, 3, 3, 3, 3])}

    timed = bench.time(calls, 34, min_rounds=3, warm_up=2)

    assert "".join(bench.order) == "abab" + ".a.b" * 3
    assert (timed["a"].seconds, timed["b"].seconds) == ((1, 2, 4), (3, 3, 3))


def test_rounds_fill_the_time_and_no_more(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(0.25)), "b": bench.call("b", repeat(0.5))}

    timed = bench.time(calls, 10)

    assert len(timed["a"].seconds) == len(timed["b"].seconds) == 11
    assert bench.now - 100 == 13 * 0.75, "a 14th round would have ended after 10 seconds"


def test_the_slowest_round_says_whether_another_fits(bench: Bench) -> None:
    calls = {"a": bench.call("a", [1, 1, 1, 4, *repeat(1, 99)])}

    timed = bench.time(calls, 12, min_rounds=1, warm_up=1)

    assert timed["a"].seconds == (1, 1, 4, 1, 1)
    assert bench.now - 100 == 9


def test_slow_calls_get_the_fewest_rounds_and_one_to_warm_up(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(30))}

    timed = bench.time(calls, 10, min_rounds=5, warm_up=3)

    assert timed["a"].seconds == (30,) * 5
    assert "".join(bench.order) == "a" + ".a" * 5


def test_short_calls_are_made_several_times_in_a_turn_and_as_often_as_the_slowest(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(1 / 64)), "b": bench.call("b", repeat(1 / 256))}

    timed = bench.time(calls, 0.1, min_rounds=2, warm_up=1)

    assert "".join(bench.order) == "ab" + ".aaaa.bbbb" * 2, "the first in each turn warms the caches"
    assert (timed["a"].seconds, timed["b"].seconds) == ((1 / 64,) * 6, (1 / 256,) * 6)


def test_only_a_slow_call_goes_without_another_before_it(bench: Bench) -> None:
    calls = {"a": bench.call("a", repeat(1)), "b": bench.call("b", repeat(1 / 64))}

    timed = bench.time(calls, 0.1, min_rounds=2, warm_up=1)

    assert "".join(bench.order) == "ab" + ".a.bb" * 2
    assert [len(timed[name].seconds) for name in "ab"] == [2, 2]


@pytest.mark.parametrize(("burnt", "pauses"), [([0.0], 1), ([0.01, 0.01, 0.0005, 0.01], 3), ([0.01] * 99, 20)])
def test_waits_for_threads_that_spin_but_not_for_ever(
    burnt: list[float], pauses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, slept = iter(x for seconds in burnt for x in (1.0, 1.0 + seconds)), []
    monkeypatch.setattr("time.process_time", lambda: next(used))
    monkeypatch.setattr("time.sleep", slept.append)

    wait_until_idle()

    assert len(slept) == pauses


def test_a_call_that_fails_is_not_hidden(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bench.time({"a": bench.call("a", repeat(1)), "b": fail}, 1)


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
