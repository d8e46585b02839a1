"""From a server's replies to typed answers and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from trainyard.base.errors import ItemError, TrainyardError
from trainyard.client.retry import PASSING, Reply
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import Reads
from trainyard.inference.predictor import Deployed

T = TypeVar("T")

MOST_REASON = 300
"""Characters shown of what a server says."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Statuses whose reason may be that of some items alone, or of their number."""


def _pair(score: object) -> object:
    return (score.get("label"), score.get("probability")) if isinstance(score, dict) else score


def _renamed(deployed: object) -> object:
    """Older servers call the format a rung."""
    return {{"rung": "format"}.get(key, key): deployed[key] for key in deployed} if isinstance(deployed, dict) else None


@dataclass(frozen=True)
class Answer(Prediction):
    """A prediction, and which model gave it.

    Attributes:
        model: Its name.
        version: Of the model.
        deployed: The bundle's digest, the export's id and the format.
    """

    top: list[Annotated[tuple[str, float], BeforeValidator(_pair)]]
    model: str
    version: str
    deployed: Annotated[Deployed, BeforeValidator(_renamed)]


@dataclass(frozen=True)
class ServedModel:
    """What a server tells of a model.

    Attributes:
        name: Its name.
        versions: That are served.
        reads: What its items are, and the columns of tables that hold them.
    """

    name: str
    versions: tuple[str, ...]
    reads: Reads


class ServerError(TrainyardError):
    """The server answered with an error, or with what makes no sense.

    Attributes:
        status: The reply's, of HTTP; none if there was no reply.
        reason: What the server said.
    """

    def __init__(self, message: str, status: int | None, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Unreachable(ServerError):
    """There was no reply: no connection, or none in time."""


class Unauthorised(ServerError):
    """The token is missing or wrong."""


class NotServed(ServerError):
    """The server doesn't have this model, or this version of it."""


_OBJECT = TypeAdapter(dict[str, Any])
_ROWS = TypeAdapter(list[dict[str, Any]])
_ANSWER = TypeAdapter(Answer)
_MODEL = TypeAdapter(ServedModel)
_NAMES = TypeAdapter(list[str])


def read_answers(reply: Reply, count: int, url: str) -> list[Answer | ItemError]:
    """The answers to so many items, in order.

    Raises:
        ServerError: there are none. That a lone item was refused is that item's error.
    """
    if count == 1 and reply.status in REFUSALS:
        return [ItemError(reason_of(reply))]

    def make(told: dict[str, Any]) -> list[Answer | ItemError]:
        rows = _ROWS.validate_python([told] if "label" in told else told.get("predictions"))
        if len(rows) != count:
            raise ValueError(f"{len(rows)} predictions for {count} items")
        return [
            ItemError(str(row["error"])) if "error" in row else _ANSWER.validate_python({**told, **row}) for row in rows
        ]

    return read(reply, url, make)


def model_of(told: dict[str, Any]) -> ServedModel:
    """What a server tells of a model, by the Open Inference Protocol; raises ``ValueError`` if that makes no sense."""
    return _MODEL.validate_python({**told, "reads": _reads(told.get("inputs"))})


def names_of(told: dict[str, Any]) -> list[str]:
    """The names of a server's models; raises ``ValueError`` if there are none to be read."""
    return _NAMES.validate_python(told.get("models"))


def is_ready(reply: Reply, url: str) -> bool:
    """Whether a server says that it can answer.

    Raises:
        ServerError: it says neither.
    """
    if reply.status not in (None, HTTPStatus.OK, HTTPStatus.GATEWAY_TIMEOUT, *PASSING):
        raise error_of(reply, url)
    return reply.status == HTTPStatus.OK


_BUSY = ServerError, "{url} is too busy or isn't ready ({reason}): try again later"
_ERRORS: dict[int | None, tuple[type[ServerError], str]] = {
    None: (Unreachable, "{url} gives no answer ({reason}): check the URL, and that the server is up"),
    # The reason is this advice in the server's words.
    401: (Unauthorised, "{url} refuses a missing or wrong token: give the server's token file, or the token in it"),
    403: (Unauthorised, "{url} refuses the request ({reason}): ask with a token that is allowed to"),
    404: (NotServed, "{url} doesn't serve that ({reason}): check model, version and URL"),
    504: (ServerError, "{url} took too long over the request ({reason}): send smaller items, or fewer at once"),
    **dict.fromkeys(PASSING, _BUSY),
}


def error_of(reply: Reply, url: str) -> ServerError:
    """The error that a reply of another status than 200 is."""
    reason = reason_of(reply)
    kind, message = _ERRORS.get(reply.status, (ServerError, f"{{url}} answered {reply.status} ({{reason}})"))
    return kind(message.format(url=url, reason=reason), reply.status, reason)


def reason_of(reply: Reply) -> str:
    """What the server says, on one line: our ``error``, TorchServe's ``message``, or the beginning of the text."""
    text = reply.body.decode("utf-8", errors="replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = text
    if isinstance(content, dict):
        content = content.get("error") or content.get("message") or text
    line = " ".join(str(content).split())
    return line[:MOST_REASON] or next((one.phrase for one in HTTPStatus if one == reply.status), str(reply.status))


def _reads(inputs: object) -> dict[str, object]:
    """Where the server tells no columns, they are called as the input, or are a pair's first two."""
    [given] = _ROWS.validate_python(inputs)
    shape, parameters = given.get("shape"), given.get("parameters")
    pair = isinstance(shape, list) and len(shape) > 1
    told = parameters if isinstance(parameters, dict) else {}
    return {
        "kind": given.get("name"),
        "pair": pair,
        "columns": told.get("columns", (0, 1) if pair else (given.get("name"),)),
        "dialect": {"header": told.get("header", False)},
        "label": told.get("label"),
    }


def read(reply: Reply, url: str, make: Callable[[dict[str, Any]], T]) -> T:
    """What is made of a reply of status 200, an object of JSON.

    Raises:
        ServerError: it is no such reply, or makes no sense.
    """
    if reply.status != HTTPStatus.OK:
        raise error_of(reply, url)
    try:
        return make(_OBJECT.validate_json(reply.body))
    except ValueError as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        message = f"{url} answered what isn't an answer ({why}): check that it is a trainyard server"
        raise ServerError(message, reply.status, why) from error
