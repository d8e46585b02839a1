"""What a request is, in whatever form it came: raw items, and how they are to be answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, TypeVar

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import ItemError, TrainyardError
from trainyard.http.items import decoded_text, sent_image, sent_text
from trainyard.http.strict_json import Value, shown
from trainyard.preprocess.base import Item, Kind

T = TypeVar("T")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})((?:[ \t]*;.*)?)")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?[ \t]*')
_MAX_CHARS = 1000

MAX_ITEMS = 128
"""Items of a request. They are answered together, so that more would hold up everybody else for seconds; a client with
many items sends several requests, which a server spreads over its workers."""
TOP_K = 3
"""Classes that an answer lists unless the request says how many."""

JSON = "application/json"
MULTIPART = "multipart/form-data"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header of a body that is JSON with binary tensors behind it: bytes of the JSON. For a worker it is a parameter of the
Content-Type."""


@dataclass(frozen=True)
class MediaType:
    """A media type.

    Attributes:
        name: In small letters, such as ``image/png``.
        parameters: By their names in small letters.
    """

    name: str
    parameters: dict[str, str]

    @property
    def is_utf8(self) -> bool:
        """Whether it names no other encoding than UTF-8."""
        return self.parameters.get("charset", "utf-8").lower() == "utf-8"


def parse_media_type(value: str) -> MediaType | None:
    """Reads ``type/subtype; key=value`` (RFC 9110, 8.3.1); nothing if it isn't one, or has a parameter twice."""
    match = _TYPE.fullmatch(value.strip(" \t")) if len(value) <= _MAX_CHARS else None
    if match is None:
        return None
    name, rest = match.groups()
    parameters: dict[str, str] = {}
    position = 0
    while position < len(rest):
        found = _PARAMETER.match(rest, position)
        if found is None:
            return None
        key, content = found.groups()
        if key is not None:
            if key.lower() in parameters:
                return None
            parameters[key.lower()] = re.sub(r"\\(.)", r"\1", content[1:-1]) if content.startswith('"') else content
        position = found.end()
    return MediaType(name.lower(), parameters)


class RequestError(TrainyardError):
    """A request that can't be answered as a whole.

    Args:
        reason: One sentence, which the client gets.
        status: The HTTP status.
    """

    def __init__(self, reason: str, status: Literal[400, 413, 415] = 400) -> None:
        super().__init__(reason)
        self.status = status


class _Form(NamedTuple):
    """How an item of a kind comes in a request.

    Attributes:
        types: Media types of a body or part that is an item itself; ``*`` stands for anything.
        utf8: Whether these are in UTF-8 alone.
        raw: Makes an item of such a body or part.
        sent: Makes an item of a value of JSON; told whether it is a pair.
    """

    types: tuple[str, ...]
    utf8: bool
    raw: Callable[[bytes], Item]
    sent: Callable[[Value, bool], Item]


# By kind and not asked of the preprocessor: media types and base64 are HTTP's, and a client has no preprocessor.
_FORMS: dict[Kind, _Form] = {
    "image": _Form(("image/*", OCTETS), False, bytes, lambda value, pair: sent_image(value)),
    "text": _Form((TEXT,), True, decoded_text, sent_text),
}


@dataclass(frozen=True)
class Accepts:
    """What a model reads.

    Attributes:
        kind: Images or texts, by the name that requests have for one.
        pair: Whether an item is a pair of texts.
    """

    kind: Kind
    pair: bool = False

    @staticmethod
    def of(bundle: Bundle) -> Accepts:
        """What a bundle's model reads."""
        return Accepts(bundle.kind, bundle.reads_pairs)

    @property
    def raw_types(self) -> tuple[str, ...]:
        """The media types of a body or part that is an item itself; a pair can be told in JSON alone."""
        return () if self.pair else _FORMS[self.kind].types

    @property
    def types(self) -> tuple[str, ...]:
        """The media types of a request."""
        return (*self.raw_types, MULTIPART, JSON) if self.raw_types else (JSON,)

    @property
    def utf8(self) -> bool:
        """Whether items are text, which is read as UTF-8."""
        return _FORMS[self.kind].utf8

    def raw(self, type: MediaType) -> bool:
        """Whether a body or part of this type is an item itself."""
        return any(fnmatchcase(type.name, known) for known in self.raw_types) and (type.is_utf8 or not self.utf8)

    def raw_item(self, content: bytes) -> Item:
        """The item that these bytes are; raises ``ItemError`` if they are no text of a model of texts."""
        return _FORMS[self.kind].raw(content)

    def sent_item(self, value: Value) -> Item:
        """The item that a value of JSON is; raises ``ItemError`` if it is none."""
        return _FORMS[self.kind].sent(value, self.pair)


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
        items: Raw items, and the errors of those that are none.
        form: How the answer looks: of one item, a list of several, or as the Open Inference Protocol has it.
        top_k: Classes that an answer lists.
        id: The client's name for the request, in the Open Inference Protocol.
        outputs: The outputs that it wants, in the Open Inference Protocol; all if it names none.
        binary: Those of them that it wants as binary tensors.
        model: The model that it names besides the path, as KServe's client does.
    """

    items: tuple[Item | ItemError, ...]
    form: Literal["one", "several", "v2"]
    top_k: int = TOP_K
    id: str | None = None
    outputs: tuple[str, ...] = ()
    binary: frozenset[str] = frozenset()
    model: str | None = None


def check_keys(value: dict[str, Value], known: Iterable[str], where: str) -> None:
    """Raises ``RequestError`` if an object has other keys than these."""
    for key in value:
        if key not in known:
            raise RequestError(f"{where} has the unknown key {shown(key)}: it takes {', '.join(known)}")


def check_count(count: int, what: str) -> None:
    """Raises ``RequestError`` if there are no items, or too many."""
    if not count:
        raise RequestError(f"there are no {what}")
    if count > MAX_ITEMS:
        raise RequestError(f"there are {count} {what}: send at most {MAX_ITEMS} at once")


def read_all(read: Callable[[T], Item], values: Iterable[T]) -> tuple[Item | ItemError, ...]:
    def attempt(value: T) -> Item | ItemError:
        try:
            return read(value)
        except ItemError as error:
            return error

    return tuple(attempt(value) for value in values)
