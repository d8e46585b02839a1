"""Several requests in one body, and their answers in another: what the gateway and a worker send each other.

The first line is JSON: of each its body's length, and what it has beside it. The bodies follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydantic_core import to_json

from trainyard.base.errors import ItemError
from trainyard.http.request_types import JSON

Row = TypeVar("Row", bound=tuple[Any, ...])

Score: TypeAlias = NDArray[np.float32] | ItemError
"""An item's probabilities ``[classes] float32``, or its error."""
DIGITS = 3
"""Of milliseconds, confidences and measures behind the point."""


class Sent(NamedTuple):
    """A request as it came in: its Content-Type, as the client gave it, and its body."""

    content_type: str
    body: bytes


class Facts(NamedTuple):
    """What a worker tells the gateway of a request, for metrics and the log. Of the largest one they have about 3 kB.

    Attributes:
        items: How many it holds.
        preprocess_ms: Until its batch was the model's inputs.
        model_ms: Of the model, which answered the whole batch.
        batch: Items in the batch, told once: by its first request.
        labels: Of each item that was answered, the class by its position.
        confidences: The probabilities of these classes.
        measures: What the preprocessor measured of these items, by name.
    """

    items: int
    preprocess_ms: float
    model_ms: float
    batch: int | None
    labels: list[int]
    confidences: list[float]
    measures: dict[str, list[float]]

    @staticmethod
    def of(
        items: Sequence[tuple[Score, dict[str, float]]],
        preprocess_seconds: float,
        model_seconds: float,
        batch: int | None,
    ) -> Facts:
        """Those of a request, by the scores and measures of its items."""
        found = [(row, one) for row, one in items if not isinstance(row, ItemError)]
        return Facts(
            len(items),
            round(preprocess_seconds * 1000, DIGITS),
            round(model_seconds * 1000, DIGITS),
            batch,
            [int(row.argmax()) for row, _ in found],
            [round(float(row.max()), DIGITS) for row, _ in found],
            {name: [round(one[name], DIGITS) for _, one in found] for name in (found[0][1] if found else ())},
        )


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
    return [Sent(content_type, content) for (_, content_type), content in _read(_SENT, body)]


def write_replies(replies: Sequence[Reply]) -> bytes:
    """The body that holds them."""
    head = to_json([(len(r.body), r.status, r.content_type, dict(r.headers), r.facts) for r in replies])
    return b"".join([head, b"\n", *(reply.body for reply in replies)])


def read_replies(body: bytes) -> list[Reply]:
    """What ``write_replies`` wrote.

    Raises:
        ValueError: it is something else.
    """
    return [
        Reply(status, content, content_type, headers, facts)
        for (_, status, content_type, headers, facts), content in _read(_REPLIES, body)
    ]


def _read(rows: TypeAdapter[list[Row]], body: bytes) -> Iterator[tuple[Row, bytes]]:
    """What the first line has of each, the length of its body first, and this body."""
    end = body.find(b"\n") + 1
    for row in rows.validate_json(body[:end]):
        start, end = end, end + row[0]
        yield row, body[start:end]
