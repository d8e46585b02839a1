"""A line of the log for each request: who asked what, what came of it, and how long it took."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from random import getrandbits
from typing import Literal, TextIO, TypeAlias

from aiohttp import web

from trainyard.http.batch import Facts, Reply

log = logging.getLogger(__name__)

LogFormat: TypeAlias = Literal["json", "text"]
LEFT = 499
"""The status, in the log alone, of a request whose client left before it was answered; nginx's."""
ID = re.compile(r"[\x21-\x7e]{1,128}")
TRACE = re.compile(r"[0-9a-f]{2}-(?P<id>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""The header ``traceparent`` of W3C Trace Context."""
WORD = re.compile(r"[\w./@:+-]+", re.ASCII)
GATHER_SECONDS = 0.1
LONGEST = 200
"""Characters of a path or a reason in the log."""


@dataclass
class Entry:
    """What the log says of a request.

    Attributes:
        id: Its own, or its trace's, or a new one; the answer has it too.
        path: What was asked for, without a query.
        model: The model, where it is one of ours.
        version: Its version, or what the client took for one.
        token: The name of the token that was shown.
        bytes: Of the body that came in.
        items: How many it holds, where that is known.
        status: The answer's, or ``LEFT``.
        code: What went wrong, in a word, as metrics have it.
        reason: The error that was answered.
        ms: Until the answer was there.
        queue_ms: Of these, waiting for a worker and a batch.
        model_ms: Of these, the model's call.
        facts: What a worker said of it, if it came to one; not for the log.
    """

    id: str
    path: str
    model: str | None = None
    version: str | None = None
    token: str | None = None
    bytes: int = 0
    items: int | None = None
    status: int = 500
    code: str | None = None
    reason: str | None = None
    ms: float = 0.0
    queue_ms: float | None = None
    model_ms: float | None = None
    facts: Facts | None = None

    def answered(self, reply: Reply) -> None:
        """Takes from an answer what came of the request."""
        self.status = reply.status
        self.code = reply.code or _code(self.status)
        if reply.status >= 400:
            self.reason = _error(reply.body)

    def left(self) -> None:
        """Its client is gone."""
        self.status, self.code = LEFT, "client_left"

    def worked(self, facts: Facts, seconds: float) -> None:
        """Takes what a worker says of the request, which it had, waiting included, for this long."""
        self.facts, self.items, self.model_ms = facts, facts.items, facts.model_ms
        self.queue_ms = round(max(0.0, seconds * 1000 - facts.preprocess_ms - facts.model_ms), 1)

    def tell(self, is_quiet: bool) -> None:
        """Logs it; at debug what happens all the time, or is the client's own affair."""
        level = logging.WARNING if self.status >= 500 else logging.INFO
        if is_quiet or self.status == LEFT:
            level = logging.DEBUG
        log.log(level, "request", extra={"entry": self})


ENTRY = web.RequestKey("entry", Entry)


def new_entry(request: web.Request) -> Entry:
    """That of a request that has just come in."""
    return Entry(request_id(request.headers), request.rel_url.raw_path[:LONGEST])


def request_id(headers: Mapping[str, str]) -> str:
    """The id of a request, by the headers that may tell one; else a new one."""
    if ID.fullmatch(given := headers.get("X-Request-Id", "")):
        return given
    trace = TRACE.fullmatch(headers.get("traceparent", ""))
    return trace["id"] if trace else f"{getrandbits(128):032x}"


def _code(status: int) -> str | None:
    return HTTPStatus(status).phrase.lower().replace(" ", "_") if status >= 400 and status != LEFT else None


def _error(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["error"])[:LONGEST]
    except (ValueError, KeyError, TypeError):
        return None


class Lines(logging.Formatter):
    """Writes each record as a line, with its time in UTC; what came from a client can't end the line.

    Args:
        form: An object of JSON, or a text that is easy to read.
    """

    def __init__(self, form: LogFormat) -> None:
        super().__init__()
        self._is_json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception's traceback is more lines of a text, and a key of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = getattr(record, "entry", None)
        about = dict(vars(entry)) if isinstance(entry, Entry) else {}  # asdict copies deeply, for a tenth of the time
        about.pop("facts", None)
        if not self._is_json:
            told = [f"{k}={_word(v) if isinstance(v, str) else v}" for k, v in about.items() if v is not None]
            message = " ".join([record.getMessage(), *told])
            trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
            return f"{time} {record.levelname.lower()} {message}{trace}"
        if record.exc_info:
            about["traceback"] = self.formatException(record.exc_info)
        return json.dumps({"time": time, "level": record.levelname.lower(), "message": record.getMessage(), **about})


@lru_cache(256)
def _word(text: str) -> str:
    return text if WORD.fullmatch(text) else json.dumps(text)


class Gathered(logging.StreamHandler[TextIO]):
    """Writes to stderr, lines of requests many at a time: a call of the system for each costs as much as an answer.

    What isn't of a request is written at once, with what waits before it.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line."""
        self._waiting.append(self.format(record) + self.terminator)
        if not hasattr(record, "entry"):
            self.flush()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes what waits; the end of the program does, too."""
        with self.lock or contextlib.nullcontext():
            lines = "".join(self._waiting)
            self._waiting.clear()
            self.stream.write(lines)
            super().flush()


def write_log_as(form: LogFormat) -> None:
    """Has all that is logged from now on written to stderr so."""
    # What no line tells needn't be found out for each: as the Logging HOWTO has it under Optimization.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = Gathered()
    handler.setFormatter(Lines(form))
    logging.getLogger().handlers = [handler]
