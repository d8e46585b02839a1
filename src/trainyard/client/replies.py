"""From a server's replies to typed answers and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, TypeVar

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from trainyard.artifacts.export_record import FormatName
from trainyard.base.errors import ItemError, TrainyardError
from trainyard.client.calls import Call
from trainyard.client.retry import PASSING, Lost, Outcome, Reply
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import Reads
from trainyard.inference.predictor import Deployed
from trainyard.preprocess.base import Kind
from trainyard.preprocess.rows import Dialect

T = TypeVar("T")

MOST_REASON = 300
"""Characters shown of what a server says."""
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


@dataclass(frozen=True)
class Answer(Prediction):
    """A prediction, and which model gave it.

    Attributes:
        model: Its name.
        version: Of the model.
        deployed: The bundle's digest, the export's id and the format.
    """

    model: str
    version: str
    deployed: Deployed


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


class _Deployed(BaseModel):
    bundle: str
    export: str | None
    format: FormatName = Field(validation_alias=AliasChoices("format", "rung"))  # as older servers call it


class _Score(BaseModel):
    label: str
    probability: float


class _Prediction(_Score):
    top: list[_Score]


class _Failed(BaseModel):
    error: str


class _Parameters(BaseModel):
    columns: list[int | str]
    header: bool = False
    label: int | str | None = None


class _Input(BaseModel):
    name: Kind
    shape: list[int]
    parameters: _Parameters | None = None

    def reads(self) -> Reads:
        """Where the server tells no columns, they are called as the input, or are a pair's first two."""
        pair = len(self.shape) > 1
        known = self.parameters or _Parameters(columns=[0, 1] if pair else [self.name])
        return Reads(self.name, pair, tuple(known.columns), Dialect(header=known.header), known.label)


class _Model(BaseModel):
    name: str
    versions: list[str]
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]


class _Names(BaseModel):
    models: list[str]


class _Origin(BaseModel):
    model: str
    version: str
    deployed: _Deployed


class _Several(_Origin):
    predictions: list[_Prediction | _Failed]


class _One(_Origin, _Prediction):
    """The answer to one image that was sent as it is."""


def is_refused_whole(outcome: Outcome, call: Call) -> bool:
    """Whether a call failed for a reason that may be that of some items alone, or of their number."""
    return len(call.sent) > 1 and isinstance(outcome, Reply) and outcome.status in REFUSALS


def read_answers(outcome: Outcome, call: Call, url: str) -> list[Answer | ItemError]:
    """The answers to a call's items, in order.

    Raises:
        ServerError: there are none. That a lone item was refused is that item's error.
    """
    if len(call.sent) == 1 and isinstance(outcome, Reply) and outcome.status in REFUSALS:
        refused: list[Answer | ItemError] = [ItemError(reason_of(outcome))]
        return call.fill(refused)
    if call.is_raw:
        one = read(outcome, url, _One.model_validate_json)
        return call.fill([_answer(one, one)])
    several = read(outcome, url, _Several.model_validate_json)
    if len(several.predictions) != len(call.sent):
        raise _nonsense(outcome, url, f"{len(several.predictions)} predictions for {len(call.sent)} items")
    return call.fill([_answer(row, several) for row in several.predictions])


def read_model(outcome: Outcome, url: str) -> ServedModel:
    """What a reply tells of a model, by the Open Inference Protocol.

    Raises:
        ServerError: nothing.
    """
    told = read(outcome, url, _Model.model_validate_json)
    [given] = told.inputs
    return ServedModel(told.name, tuple(told.versions), given.reads())


def read_names(outcome: Outcome, url: str) -> list[str]:
    """The names of a server's models.

    Raises:
        ServerError: there are none to be read.
    """
    return read(outcome, url, _Names.model_validate_json).models


def is_ready(outcome: Outcome, url: str) -> bool:
    """Whether a server says that it can answer.

    Raises:
        ServerError: it says neither.
    """
    if isinstance(outcome, Lost) or outcome.status in PASSING:
        return False
    if outcome.status != HTTPStatus.OK:
        raise error_of(outcome, url)
    return True


def read(outcome: Outcome, url: str, parse: Callable[[bytes], T]) -> T:
    """What a reply of status 200 holds.

    Raises:
        ServerError: it has another status, can't be parsed, or there is none.
    """
    if isinstance(outcome, Lost):
        message = f"{url} gives no answer ({outcome.reason}): check the URL, and that the server is up"
        raise Unreachable(message, None, outcome.reason)
    if outcome.status != HTTPStatus.OK:
        raise error_of(outcome, url)
    try:
        return parse(outcome.body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _nonsense(outcome, url, f"{where}: {first['msg']}" if where else first["msg"]) from error


def error_of(reply: Reply, url: str) -> ServerError:
    """The error that a reply of another status than 200 is."""
    reason = reason_of(reply)
    match reply.status:
        case HTTPStatus.UNAUTHORIZED:  # the reason is this advice in the server's words
            message = f"{url} refuses a missing or wrong token: give the server's token file, or the token in it"
            return Unauthorised(message, reply.status, reason)
        case HTTPStatus.FORBIDDEN:
            message = f"{url} refuses the request ({reason}): ask with a token that is allowed to"
            return Unauthorised(message, reply.status, reason)
        case HTTPStatus.NOT_FOUND:
            return NotServed(f"{url} doesn't serve that ({reason}): check model, version and URL", reply.status, reason)
        case status if status in PASSING:
            return ServerError(f"{url} is too busy or isn't ready ({reason}): try again later", reply.status, reason)
    return ServerError(f"{url} answered {reply.status} ({reason})", reply.status, reason)


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
    return line[:MOST_REASON] or _phrase(reply.status)


def _answer(row: _Prediction | _Failed, origin: _Origin) -> Answer | ItemError:
    if isinstance(row, _Failed):
        return ItemError(row.error)
    top = [(one.label, one.probability) for one in row.top]
    deployed = Deployed(**origin.deployed.model_dump())
    return Answer(row.label, row.probability, top, origin.model, origin.version, deployed)


def _nonsense(outcome: Outcome, url: str, why: str) -> ServerError:
    status = outcome.status if isinstance(outcome, Reply) else None
    return ServerError(f"{url} answered what isn't an answer ({why}): check that it is a trainyard server", status, why)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"
