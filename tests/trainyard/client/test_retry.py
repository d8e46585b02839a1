"""What is sent again and how long the pauses are, without a server and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from trainyard.client.client import AsyncClient, asked_seconds
from trainyard.client.messages import Reply, Request

FINE, BUSY, LOST = Reply(200, b""), Reply(503, b""), Reply(None, b"the connection broke")


class Clock:
    """Stands still but for the pauses, and for what each attempt takes."""

    def __init__(self, attempt: float = 0.0) -> None:
        self.now = 1000.0
        self.attempt = attempt
        self.seconds: list[float] = []

    def __call__(self) -> float:
        return self.now


Play = Callable[..., tuple[Reply, list[float]]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Gives the outcomes one after the other to a client of these options; returns the last, and the pauses."""
    client = AsyncClient("http://localhost")
    usual = vars(client).copy()

    def ask(
        outcomes: Sequence[Reply],
        clock: Clock,
        drawn: float = 1,
        first: float = 0.2,
        most: float = 10,
        **options: float,
    ) -> tuple[Reply, list[float]]:
        rest = iter(outcomes)
        pauses: list[float] = []

        async def attempt(request: Request, seconds: float) -> Reply:
            clock.seconds.append(seconds)
            clock.now += min(clock.attempt, seconds)
            return next(rest)

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            clock.now += seconds

        with monkeypatch.context() as patch:
            for name, value in (("monotonic", clock), ("asyncio.sleep", sleep), ("random", lambda: drawn),
                                ("FIRST_PAUSE", first), ("MOST_PAUSE", most)):  # fmt: skip
                patch.setattr(f"trainyard.client.client.{name}", value)
            vars(client).update(usual, _attempt=attempt, **options)
            last = asyncio.run(client._ask(Request("v2/models")))
        assert next(rest, None) is None, "all outcomes were asked for"
        return last, pauses

    return ask


def test_what_is_answered_is_sent_once(play: Play) -> None:
    assert play([FINE], Clock()) == (FINE, [])


def test_only_what_passes_is_sent_again(play: Play) -> None:
    for status in range(200, 600):
        passes = status in (429, 502, 503)
        outcomes = [Reply(status, b""), FINE] if passes else [Reply(status, b"")]
        assert play(outcomes, Clock())[0] == outcomes[-1]


def test_a_lost_connection_is_tried_again(play: Play) -> None:
    assert play([LOST, LOST, FINE], Clock())[0] == FINE


def test_the_last_outcome_is_kept_when_all_retries_are_used_up(play: Play) -> None:
    last = Reply(503, b"still busy")
    assert play([LOST, BUSY, last], Clock(), retries=2)[0] == last
    assert play([LOST], Clock(), retries=0) == (LOST, [])


def test_pauses_double_up_to_the_longest(play: Play) -> None:
    _, pauses = play([BUSY] * 7, Clock(), retries=6, first=0.5, most=3, deadline=99)
    assert pauses == [0.5, 1, 2, 3, 3, 3]


def test_a_pause_is_drawn_from_nothing_on(play: Play) -> None:
    assert play([BUSY] * 4, Clock(), retries=3, drawn=0.0)[1] == [0, 0, 0]
    assert play([BUSY] * 3, Clock(), retries=2, first=1, drawn=0.25)[1] == [0.25, 0.5]


def test_the_pause_that_the_server_asks_for_is_kept_up_to_a_bound(play: Play) -> None:
    asking = [Reply(503, b"", "7"), Reply(429, b"", "3600"), FINE]
    assert play(asking, Clock(), drawn=0.0) == (FINE, [7, 30])
    # Drawn on top, or all clients would come back in the same second.
    assert play([Reply(503, b"", "7"), FINE], Clock(), first=1, drawn=0.5)[1] == [7.5]


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


def test_nobody_sleeps_past_the_deadline(play: Play) -> None:
    assert play([BUSY, BUSY, BUSY], Clock(), retries=9, deadline=10, first=4, most=4)[1] == [4, 4]
    assert play([Reply(503, b"", "6")], Clock(), deadline=5)[1] == []


def test_an_attempt_ends_with_the_deadline(play: Play) -> None:
    clock = Clock(attempt=30)
    play([LOST, LOST], clock, timeout=30, deadline=40, first=0)
    assert clock.seconds == [30, 10]
