"""What is sent again and how long the pauses are, without a server and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from trainyard.client.retry import Reply, Retries, asked_seconds

FINE, BUSY, LOST = Reply(200, b""), Reply(503, b""), Reply(None, b"the connection broke")


class Clock:
    """Stands still but for the pauses, and for what each attempt takes."""

    def __init__(self, attempt: float = 0.0) -> None:
        self.now = 1000.0
        self.attempt = attempt
        self.seconds: list[float] = []

    def __call__(self) -> float:
        return self.now


def play(retries: Retries, outcomes: Sequence[Reply], clock: Clock, drawn: float = 1.0) -> tuple[Reply, list[float]]:
    """Gives the outcomes one after the other; returns the last, and the pauses."""
    rest = iter(outcomes)
    pauses: list[float] = []

    async def attempt(seconds: float) -> Reply:
        clock.seconds.append(seconds)
        clock.now += min(clock.attempt, seconds)
        return next(rest)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    last = asyncio.run(retries.insist(attempt, clock, sleep, lambda: drawn))
    assert next(rest, None) is None, "all outcomes were asked for"
    return last, pauses


def test_what_is_answered_is_sent_once() -> None:
    assert play(Retries(), [FINE], Clock()) == (FINE, [])


def test_only_what_passes_is_sent_again() -> None:
    for status in range(200, 600):
        passes = status in (429, 502, 503)
        outcomes = [Reply(status, b""), FINE] if passes else [Reply(status, b"")]
        assert play(Retries(), outcomes, Clock())[0] == outcomes[-1]


def test_a_lost_connection_is_tried_again() -> None:
    assert play(Retries(), [LOST, LOST, FINE], Clock())[0] == FINE


def test_the_last_outcome_is_kept_when_all_retries_are_used_up() -> None:
    last = Reply(503, b"still busy")
    assert play(Retries(retries=2), [LOST, BUSY, last], Clock())[0] == last
    assert play(Retries(retries=0), [LOST], Clock()) == (LOST, [])


def test_pauses_double_up_to_the_longest() -> None:
    _, pauses = play(Retries(retries=6, first_pause=0.5, most_pause=3, deadline=99), [BUSY] * 7, Clock())
    assert pauses == [0.5, 1, 2, 3, 3, 3]


def test_a_pause_is_drawn_from_nothing_on() -> None:
    assert play(Retries(retries=3), [BUSY] * 4, Clock(), drawn=0.0)[1] == [0, 0, 0]
    assert play(Retries(retries=2, first_pause=1), [BUSY] * 3, Clock(), drawn=0.25)[1] == [0.25, 0.5]


def test_the_pause_that_the_server_asks_for_is_kept_up_to_a_bound() -> None:
    asking = [Reply(503, b"", "7"), Reply(429, b"", "3600"), FINE]
    assert play(Retries(most_asked=20), asking, Clock(), drawn=0.0) == (FINE, [7, 20])
    # Drawn on top, or all clients would come back in the same second.
    assert play(Retries(first_pause=1), [Reply(503, b"", "7"), FINE], Clock(), drawn=0.5)[1] == [7.5]


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("5", 5), (" 5 ", 5), ("-5", 0), ("soon", 0), ("", 0), ("1e9", 0)]
)
def test_the_header_in_seconds(header: str | None, seconds: float) -> None:
    assert asked_seconds(header) == seconds


def test_the_header_as_a_date() -> None:
    now = datetime.now(UTC)
    assert 50 < asked_seconds(format_datetime(now + timedelta(seconds=60), usegmt=True)) <= 60
    assert asked_seconds(format_datetime(now - timedelta(days=1), usegmt=True)) == 0
    assert asked_seconds("Fri, 31 Dec 1999 23:59:59") == 0


def test_nobody_sleeps_past_the_deadline() -> None:
    retries = Retries(retries=9, deadline=10, first_pause=4, most_pause=4)
    assert play(retries, [BUSY, BUSY, BUSY], Clock(), drawn=1.0)[1] == [4, 4]
    assert play(Retries(deadline=5), [Reply(503, b"", "6")], Clock())[1] == []


def test_an_attempt_ends_with_the_deadline() -> None:
    clock = Clock(attempt=30)
    play(Retries(timeout=30, deadline=40, first_pause=0), [LOST, LOST], clock)
    assert clock.seconds == [30, 10]
