"""What is sent again, when, and for how long.

A prediction changes nothing on the server and has the same answer every time, so that sending one twice does no harm,
also where the first may have arrived. What was too much for the server isn't sent again: it would be once more.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

log = logging.getLogger(__name__)

PASSING = frozenset((429, 502, 503))
"""Statuses that may be others a moment later: too busy, starting, restarting. All else would be the same again."""


@dataclass(frozen=True)
class Reply:
    """What came of an attempt.

    Attributes:
        status: Of HTTP; none if the connection failed or broke, or time ran out.
        body: What the server sent; without a status, what happened.
        retry_after: The header of this name.
    """

    status: int | None
    body: bytes
    retry_after: str | None = None


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    The pause before attempt n is drawn evenly from 0 to ``first_pause`` x 2^n seconds, at most ``most_pause``: "full
    jitter", by which many clients of a server that comes back don't come back at once (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015). A server that says ``Retry-After`` gets that pause on top.

    Attributes:
        timeout: Seconds that one attempt may take: more than a server's own 60, whose word on it isn't to be missed.
        deadline: Seconds that all attempts of a request and the pauses between them may take.
        retries: Attempts after the first.
        first_pause: Longest pause before the second attempt, in seconds.
        most_pause: Longest pause, in seconds, without what the server asks for.
        most_asked: What the server asks for counts up to this many seconds.
    """

    timeout: float = 65.0
    deadline: float = 90.0
    retries: int = 4
    first_pause: float = 0.2
    most_pause: float = 10.0
    most_asked: float = 30.0

    async def insist(
        self,
        attempt: Callable[[float], Awaitable[Reply]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> Reply:
        """Makes attempts until one isn't lost or refused in passing; the last one's reply.

        Args:
            attempt: Told the seconds after which it is lost.
            clock: Seconds.
            sleep: Waits for so many.
            draw: A random number from 0 to 1.
        """
        end = clock() + self.deadline
        for number in itertools.count():
            reply = await attempt(min(self.timeout, end - clock()))
            asked = min(asked_seconds(reply.retry_after), self.most_asked)
            pause = asked + draw() * min(self.most_pause, self.first_pause * 2.0**number)
            passing = reply.status is None or reply.status in PASSING
            # Who would wake up after the deadline needn't sleep.
            if number == self.retries or not passing or clock() + pause >= end:
                break
            what = f"no answer ({reply.body.decode()})" if reply.status is None else f"the server said {reply.status}"
            log.info("%s; trying again in %.1f s", what, pause)
            await sleep(pause)
        return reply


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
