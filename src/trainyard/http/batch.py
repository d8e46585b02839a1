"""Several requests in one body, and their answers in another: what the gateway and a worker send each other.

The first line is JSON: of each its body's length, and what it has beside it. The bodies follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pydantic import TypeAdapter
from pydantic_core import to_json

from trainyard.http.facts import Facts
from trainyard.http.request_types import JSON


class Sent(NamedTuple):
    """A request as it came in: its Content-Type, as the client gave it, and its body."""

    content_type: str
    body: bytes


class Reply(NamedTuple):
    """What a client gets.

    Attributes:
        status: The HTTP status.
        body: JSON in UTF-8, and binary tensors behind it where they were asked for.
        content_type: What it is.
        headers: Beside this.
        facts: What its worker says of the request, for whoever watches the server.
        code: Of a failure that its status doesn't tell from others, a word for metrics; the gateway's own.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})
    facts: Facts | None = None
    code: str = ""


_SENT = TypeAdapter(list[tuple[int, str]])
_REPLIES = TypeAdapter(list[tuple[int, int, str, dict[str, str], Facts | None]])


def write_requests(requests: Sequence[Sent]) -> list[bytes]:
    """The body that holds them, in pieces: large ones aren't copied."""
    head = to_json([(len(request.body), request.content_type) for request in requests])
    return [head + b"\n", *(request.body for request in requests)]


def read_requests(body: bytes) -> list[Sent]:
    """What ``write_requests`` wrote."""
    head, at = _head(body)
    requests: list[Sent] = []
    for length, content_type in _SENT.validate_json(head):
        requests.append(Sent(content_type, body[at : at + length]))
        at += length
    return requests


def write_replies(replies: Sequence[Reply]) -> bytes:
    """The body that holds them."""
    head = to_json([(len(r.body), r.status, r.content_type, dict(r.headers), r.facts) for r in replies])
    return b"".join([head, b"\n", *(reply.body for reply in replies)])


def read_replies(body: bytes) -> list[Reply]:
    """What ``write_replies`` wrote.

    Raises:
        ValueError: it is something else.
    """
    head, at = _head(body)
    replies: list[Reply] = []
    for length, status, content_type, headers, facts in _REPLIES.validate_json(head):
        replies.append(Reply(status, body[at : at + length], content_type, headers, facts))
        at += length
    return replies


def _head(body: bytes) -> tuple[bytes, int]:
    end = body.find(b"\n") + 1
    return body[:end], end
