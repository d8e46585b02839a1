"""What is sent again, when, and for how long: decided in one place, for the client that waits and for the async one.

A prediction changes nothing on the server and has the same answer every time, so that sending one twice does no harm,
also where the first may have arrived.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

log = logging.getLogger(__name__)

PASSING = frozenset((429, 502, 503, 504))
"""Statuses that may be others a moment later: too busy, starting, restarting. All else would be the same again."""


@dataclass(frozen=True)
class Reply:
    """What a server sent back."""

    status: int
    body: bytes
    retry_after: str | None = None
    """The header of this name."""


@dataclass(frozen=True)
class Lost:
    """No reply: the connection failed or broke, or time ran out."""

    reason: str


@dataclass(frozen=True)
class Send:
    """Asks for an attempt; its ``Reply`` or ``Lost`` is what the steps go on with."""

    seconds: float
    """After which it is lost."""


@dataclass(frozen=True)
class Wait:
    """Asks for a pause."""

    seconds: float


Outcome: TypeAlias = Reply | Lost
Steps: TypeAlias = Generator[Send | Wait, Outcome | None, Outcome]


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    The pause before attempt n is drawn evenly from 0 to ``first_pause`` x 2^n seconds, at most ``most_pause``: "full
    jitter", by which many clients of a server that comes back don't come back at once (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015). A server that says ``Retry-After`` gets that pause on top.

    Attributes:
        timeout: Seconds that one attempt may take.
        deadline: Seconds that all attempts of a request and the pauses between them may take.
        retries: Attempts after the first.
        first_pause: Longest pause before the second attempt, in seconds.
        most_pause: Longest pause, in seconds, without what the server asks for.
        most_asked: What the server asks for counts up to this many seconds.
    """

    timeout: float = 30.0
    deadline: float = 90.0
    retries: int = 4
    first_pause: float = 0.2
    most_pause: float = 10.0
    most_asked: float = 30.0

    def steps(self, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random) -> Steps:
        """The steps of one request; what the generator returns is its last outcome.

        Args:
            clock: Seconds.
            draw: A random number from 0 to 1.
        """
        end = clock() + self.deadline
        attempt = 0
        while True:
            outcome = yield Send(min(self.timeout, end - clock()))
            assert outcome is not None, "an attempt has an outcome"
            pause = self._pause(attempt, outcome, draw())
            # Who would wake up after the deadline needn't sleep.
            if attempt == self.retries or not _is_passing(outcome) or clock() + pause >= end:
                return outcome
            log.info("%s; trying again in %.1f s", _what_happened(outcome), pause)
            yield Wait(pause)
            attempt += 1

    def _pause(self, attempt: int, outcome: Outcome, drawn: float) -> float:
        asked = asked_seconds(outcome.retry_after) if isinstance(outcome, Reply) else 0.0
        return min(asked, self.most_asked) + drawn * min(self.most_pause, self.first_pause * 2.0**attempt)


def asked_seconds(header: str | None) -> float:
    """The pause that ``Retry-After`` asks for, in seconds or as a date (RFC 9110, 10.2.3); 0 if it isn't either."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _what_happened(outcome: Outcome) -> str:
    return f"no answer ({outcome.reason})" if isinstance(outcome, Lost) else f"the server answered {outcome.status}"


def _is_passing(outcome: Outcome) -> bool:
    return isinstance(outcome, Lost) or outcome.status in PASSING
