"""The log's line for each request: its form, its ids, and that no client can forge one."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from trainyard.gateway import access_log
from trainyard.gateway.access_log import LEFT, Entry, Gathered, Lines, LogFormat, new_entry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-Id": "a-1"}, "a-1"),
        ({"X-Request-Id": "a-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, "a-1"),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"X-Request-Id": "a b", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"X-Request-Id": "x" * 129}, None),
        ({"X-Request-Id": "é"}, None),
        ({"traceparent": f"00-{TRACE.upper()}-00f067aa0ba902b7-01"}, None),
        ({}, None),
    ],
)
def test_a_request_has_the_id_that_it_came_with_or_a_new_one(headers: dict[str, str], expected: str | None) -> None:
    entry = new_entry(make_mocked_request("GET", "/a?secret=1", headers=headers))
    assert entry.path == "/a"
    assert entry.id == expected if expected else len(entry.id) == 32
    assert entry.id != new_entry(make_mocked_request("GET", "/a")).id


def line(form: LogFormat, **about: Any) -> str:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "created": 0.0, **about})
    return Lines(form).format(record)


def test_lines() -> None:
    entry = Entry("a-1", "/predictions/m", "m", "1.0", "shop", 7, 1, 400, "bad_request", 'no "x"', 2.5, 0.4, 1.9)
    assert json.loads(line("json", entry=entry)) == {
        "time": "1970-01-01T00:00:00.000+00:00", "level": "info", "message": "request", "id": "a-1",
        "path": "/predictions/m", "model": "m", "version": "1.0", "token": "shop", "bytes": 7, "items": 1,
        "status": 400, "code": "bad_request", "reason": 'no "x"', "ms": 2.5, "queue_ms": 0.4, "model_ms": 1.9,
    }  # fmt: skip
    assert line("text", entry=entry) == (
        "1970-01-01T00:00:00.000+00:00 info request id=a-1 path=/predictions/m model=m version=1.0 token=shop bytes=7 "
        'items=1 status=400 code=bad_request reason="no \\"x\\"" ms=2.5 queue_ms=0.4 model_ms=1.9'
    )


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_a_client_says_ends_no_line(form: LogFormat) -> None:
    entry = Entry("a", "/x\u2028y\r\nforged", reason="a\nb\x1b[2J")
    assert line(form, entry=entry).isascii()
    assert len(line(form, entry=entry).splitlines()) == 1


def test_a_traceback_is_in_the_line() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        error = sys.exc_info()
    assert "ValueError: odd" in json.loads(line("json", exc_info=error))["traceback"]
    assert line("text", exc_info=error).endswith("ValueError: odd")


@pytest.mark.parametrize(
    ("status", "is_quiet", "level"),
    [(200, False, "INFO"), (404, False, "INFO"), (503, False, "WARNING"), (LEFT, False, "DEBUG"), (503, True, "DEBUG")],
)
def test_levels(status: int, is_quiet: bool, level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Entry("a", "/", status=status).tell(is_quiet)
    assert [record.levelname for record in caplog.records] == [level]


def test_lines_of_requests_are_written_together_and_none_is_late_or_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "GATHER_SECONDS", 0.05)
    handler = Gathered()

    def said(about: str, level: int = logging.INFO, entry: Entry | None = None) -> None:
        record = {"msg": about, "levelno": level, **({"entry": entry} if entry else {})}
        handler.handle(logging.makeLogRecord(record))

    async def main() -> None:
        entry = Entry("a", "/x")
        said("1", entry=entry)
        said("2", entry=entry)
        assert capsys.readouterr().err == ""
        await asyncio.sleep(0.1)
        assert capsys.readouterr().err == "1\n2\n"
        said("3", logging.WARNING, entry)
        said("4", logging.WARNING)
        assert capsys.readouterr().err == "3\n4\n", "what isn't of a request is seen at once, in its place"
        said("5")
        assert capsys.readouterr().err == "5\n"
        said("6", entry=entry)

    asyncio.run(main())
    handler.flush()
    assert capsys.readouterr().err == "6\n"
