"""What a client sends and gets: items as the bodies of requests, and replies as typed answers and errors."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from trainyard.base.errors import ItemError, TrainyardError, UsageError
from trainyard.heads.base import Prediction
from trainyard.http.request_types import JSON, OCTETS, TOP_K
from trainyard.inference.inputs import Reads
from trainyard.inference.predictor import Deployed
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import check_regular
from trainyard.preprocess.text import without_surrogates

T = TypeVar("T")
Told = dict[str, Any]
"""An object of JSON that a server sent."""
Instance = bytes | str | ItemError
"""What is sent of an item: an image's bytes, or of a text or a pair an object of JSON; or why nothing can be."""

MOST_ITEMS = 32
"""Items of a request: a batch of the predictor."""
MOST_BYTES = 3_000_000
"""Of a request's items, 4 MB in base64: less than servers take by default. A larger item goes alone; they decide."""
MOST_REASON = 300
"""Characters shown of what a server says."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Statuses whose reason may be that of some items alone, or of their number."""
PASSING = (None, 429, 502, 503)
"""Statuses that may be others a moment later: too busy, starting, restarting. All else would be the same again."""


class Request(NamedTuple):
    """A request to a path below the server's URL; without a body it asks for what is there."""

    path: str
    body: bytes | None = None
    content_type: str = JSON

    @property
    def headers(self) -> dict[str, str]:
        """Says what the body is."""
        return {} if self.body is None else {"Content-Type": self.content_type}


class Call(NamedTuple):
    """What is sent of some items in one request, with the errors of those that can't be sent, in order."""

    instances: list[Instance]
    top_k: int

    @property
    def sent(self) -> list[bytes | str]:
        """The instances without the errors."""
        return [instance for instance in self.instances if not isinstance(instance, ItemError)]

    def request(self, model: str, version: str | None) -> Request:
        """The request for these predictions; one image goes as it is, a quarter smaller, where nothing else is said."""
        path = "/".join(quote(word, safe="") for word in ("predictions", model, version) if word)
        match self.sent:
            case [bytes(image)] if self.top_k == TOP_K:
                return Request(path, image, OCTETS)
        objects = [
            one if isinstance(one, str) else f'{{"image": "{base64.b64encode(one).decode()}"}}' for one in self.sent
        ]
        return Request(path, f'{{"top_k": {self.top_k}, "instances": [{", ".join(objects)}]}}'.encode())

    def answers(self, told: Told) -> list[Answer | ItemError]:
        """The answers that a server told to what was sent, and the errors; ``ValueError`` if there are others."""
        rows = _ROWS.validate_python([told] if "label" in told else told.get("predictions"))
        if len(rows) != len(self.sent):
            raise ValueError(f"{len(rows)} predictions for {len(self.sent)} items")
        answers = (
            ItemError(str(row["error"])) if "error" in row else _ANSWER.validate_python({**told, **row}) for row in rows
        )
        return [one if isinstance(one, ItemError) else next(answers) for one in self.instances]


def split(items: Iterable[Item], top_k: int) -> Iterator[Call]:
    """Splits items into calls, in order; files are read when their call's turn comes.

    Raises:
        UsageError: ``top_k`` is below 1.
    """
    if top_k < 1:
        raise UsageError(f"top_k={top_k} must be at least 1")
    instances: list[Instance] = []
    size = 0
    for item in items:
        instance = _instance(item)
        length = 0 if isinstance(instance, ItemError) else len(instance)
        if instances and (len(instances) == MOST_ITEMS or size + length > MOST_BYTES):
            yield Call(instances, top_k)
            instances, size = [], 0
        instances.append(instance)
        size += length
    if instances:
        yield Call(instances, top_k)


def _instance(item: Item) -> Instance:
    try:
        match item:  # told by the item itself: a client has no preprocessor
            case bytes():
                return item
            case Path():
                check_regular(item)
                return item.read_bytes()
            case str() | (str(), str()):
                return without_surrogates(json.dumps({"text": item}, ensure_ascii=False))
    except ItemError as error:
        return error
    except OSError as error:
        return ItemError(f"{item!s} can't be read ({error.strerror})")
    return ItemError(f"an item is an image (bytes or a Path), a text or a pair of texts, not {type(item).__name__}")


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
