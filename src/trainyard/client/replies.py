"""From a server's replies to typed answers and errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from trainyard.base.errors import ItemError, TrainyardError
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import Reads
from trainyard.inference.predictor import Deployed

T = TypeVar("T")
Told = dict[str, Any]
"""An object of JSON that a server sent."""

MOST_REASON = 300
"""Characters shown of what a server says."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Statuses whose reason may be that of some items alone, or of their number."""
PASSING = (None, 429, 502, 503)
"""Statuses that may be others a moment later: too busy, starting, restarting. All else would be the same again."""


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


_BUSY = ServerError, "{url} is too busy or isn't ready ({reason}): try again later"
_ERRORS: dict[int | None, tuple[type[ServerError], str]] = {
    **dict.fromkeys(PASSING, _BUSY),
    None: (Unreachable, "{url} gives no answer ({reason}): check the URL, and that the server is up"),
    # The reason is this advice in the server's words.
    401: (Unauthorised, "{url} refuses a missing or wrong token: give the server's token file, or the token in it"),
    403: (Unauthorised, "{url} refuses the request ({reason}): ask with a token that is allowed to"),
    404: (NotServed, "{url} doesn't serve that ({reason}): check model, version and URL"),
    504: (ServerError, "{url} took too long over the request ({reason}): send smaller items, or fewer at once"),
}


class Reply(NamedTuple):
    """What came of an attempt.

    Attributes:
        status: Of HTTP; none if the connection failed or broke, or time ran out.
        body: What the server sent; without a status, what happened.
        retry_after: The header of this name.
    """

    status: int | None
    body: bytes
    retry_after: str | None = None

    @property
    def reason(self) -> str:
        """What it says, on one line: our ``error``, TorchServe's ``message``, or the beginning of the text."""
        content = text = self.body.decode(errors="replace")
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(text)
            content = (told.get("error") or told.get("message") or text) if isinstance(told, dict) else told
        return " ".join(str(content).split())[:MOST_REASON]

    def error(self, url: str) -> ServerError:
        """The error of the server at ``url`` that a reply of another status than 200 is."""
        kind, message = _ERRORS.get(self.status, (ServerError, f"{{url}} answered {self.status} ({{reason}})"))
        return kind(message.format(url=url, reason=self.reason), self.status, self.reason)

    def read(self, url: str, make: Callable[[Told], T]) -> T:
        """What ``make`` makes of a reply of status 200, an object of JSON; it may raise ``ValueError``.

        Raises:
            ServerError: the server at ``url`` sent no such reply, or one that makes no sense.
        """
        if self.status != HTTPStatus.OK:
            raise self.error(url)
        try:
            return make(_OBJECT.validate_json(self.body))
        except ValueError as error:
            why = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
            message = f"{url} answered what isn't an answer ({why}): check that it is a trainyard server"
            raise ServerError(message, self.status, why) from error


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


def answers_of(told: Told, count: int) -> list[Answer | ItemError]:
    """The answers to so many items, in order; ``ValueError`` if there are others."""
    rows = _ROWS.validate_python([told] if "label" in told else told.get("predictions"))
    if len(rows) != count:
        raise ValueError(f"{len(rows)} predictions for {count} items")
    return [
        ItemError(str(row["error"])) if "error" in row else _ANSWER.validate_python({**told, **row}) for row in rows
    ]


def _reads(inputs: object) -> Told:
    """Where the server tells no columns, they are called as the input, or are a pair's first two."""
    [given] = _ROWS.validate_python(inputs)
    name, pair = given.get("name"), given.get("shape") == [-1, 2]
    [told] = _ROWS.validate_python([given.get("parameters", {})])
    columns = told.get("columns", (0, 1) if pair else (name,))
    dialect = {"header": told.get("header", False)}
    return {"kind": name, "pair": pair, "columns": columns, "dialect": dialect, "label": told.get("label")}


@dataclass(frozen=True)
class ServedModel:
    """What a server tells of a model, by the Open Inference Protocol.

    Attributes:
        name: Its name.
        versions: That are served.
        reads: What its items are, and the columns of tables that hold them.
    """

    name: str
    versions: tuple[str, ...]
    reads: Annotated[Reads, BeforeValidator(_reads), Field(validation_alias="inputs")]


_OBJECT, _ROWS, _ANSWER = TypeAdapter(Told), TypeAdapter(list[Told]), TypeAdapter(Answer)

model_of = TypeAdapter(ServedModel).validate_python
names_of = TypeAdapter(Annotated[list[str], BeforeValidator(lambda told: told.get("models"))]).validate_python
