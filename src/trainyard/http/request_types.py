"""What a request is, in whatever form it came: raw items, and how they are to be answered."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from trainyard.base.errors import ItemError, TrainyardError
from trainyard.preprocess.base import Item, Kind
from trainyard.preprocess.text import without_surrogates

Value: TypeAlias = object
"""What JSON can say: dict, list, str, int, float, bool or None."""

MAX_ITEMS = 128
"""Items of a request. They are answered together, so that more would hold up everybody else for seconds; a client with
many items sends several requests, which a server spreads over its workers."""
MAX_CHARS = 100_000
"""Characters of a text in a request. A model reads the first few thousand, but the tokenizer goes through all of it:
10 MB take seconds, in which nobody else is answered."""
TOP_K = 3
"""Classes that an answer lists unless the request says how many."""
OUTPUTS = ("label", "probabilities")
"""Of a model, in the Open Inference Protocol."""

JSON = "application/json"
MULTIPART = "multipart/form-data"
OCTETS = "application/octet-stream"
TEXT = "text/plain"
RAW_TYPES: dict[Kind, tuple[str, ...]] = {"image": ("image/*", OCTETS), "text": (TEXT,)}
"""Media types of a body or part that is an item itself."""
HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header of a body that is JSON with binary tensors behind it: bytes of the JSON. For a worker it is a parameter of the
Content-Type."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PARAMETER = rf'[ \t]*+;[ \t]*+(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\\n]|\\.)*+"))?'
_PARAMETERS = re.compile(_PARAMETER)
_TYPE = re.compile(rf"[ \t]*+({_TOKEN}/{_TOKEN})((?:{_PARAMETER})*+)[ \t]*+")  # possessive: in linear time


class MediaType(NamedTuple):
    """A media type, such as ``image/png``, in small letters, and its parameters by their names in small letters."""

    name: str
    parameters: dict[str, str]

    def is_one_of(self, known: Sequence[str]) -> bool:
        """Whether it is one of these, as ``image/*`` stands for all images; JSON and texts are taken in UTF-8 alone."""
        if self.name in (JSON, TEXT) and self.parameters.get("charset", "utf-8").lower() != "utf-8":
            return False
        return self.name in known or any(fnmatchcase(self.name, one) for one in known)


@lru_cache(256)  # a client says the same each time
def parse_media_type(value: str) -> MediaType | None:
    """Reads ``type/subtype; key=value`` (RFC 9110, 8.3.1); nothing if it isn't one, or has a parameter twice."""
    match = _TYPE.fullmatch(value) if len(value) <= 1000 else None
    found = [(key.lower(), text) for key, text in _PARAMETERS.findall(match[2]) if key] if match else []
    parameters = {key: re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text for key, text in found}
    if match is None or len(parameters) < len(found):
        return None
    return MediaType(match[1].lower(), parameters)


class RequestError(TrainyardError):
    """A request that can't be answered as a whole.

    Args:
        reason: One sentence, which the client gets.
        status: The HTTP status.
    """

    def __init__(self, reason: str, status: Literal[400, 413, 415] = 400) -> None:
        super().__init__(reason)
        self.status = status


def shown(text: str, width: int = 40) -> str:
    """A client's own words, quoted for a message: bounded in length, with nothing that isn't printable."""
    return repr(text if len(text) <= width else f"{text[:width]}...")


@dataclass(frozen=True)
class Accepts:
    """What a model reads. No value of a request gives a path: a client names no files of the server.

    Attributes:
        kind: Images or texts, by the name that requests have for one.
        pair: Whether an item is a pair of texts.
    """

    kind: Kind
    pair: bool = False

    @property
    def raw_types(self) -> tuple[str, ...]:
        """The media types of a body or part that is an item itself; a pair can be told in JSON alone."""
        return () if self.pair else RAW_TYPES[self.kind]

    @property
    def types(self) -> tuple[str, ...]:
        """The media types of a request."""
        return (*self.raw_types, MULTIPART, JSON) if self.raw_types else (JSON,)

    def item(self, value: Value) -> Item | ItemError:
        """The item that a value of JSON or the bytes of a body are, or why they are none."""
        try:
            if self.kind == "image":
                return value if isinstance(value, bytes) else _image(value)
            if not self.pair:
                return _text(value)
            if isinstance(value, list) and len(value) == 2:
                return _text(value[0]), _text(value[1])
            return ItemError("this model reads pairs: the text is a list of two strings")
        except ItemError as error:
            return error


def _image(value: Value) -> bytes:
    with suppress(ValueError):
        if isinstance(value, str) and (image := binascii.a2b_base64(value, strict_mode=True)):
            return image
    raise ItemError("the image isn't a string of base64 (without line breaks, and without a data: prefix)")


def _text(value: Value) -> str:
    """A text, or one in UTF-8; a byte order mark, as editors write it, isn't part of it."""
    if isinstance(value, bytes):
        try:
            value = value.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise ItemError(f"the text isn't UTF-8 at byte {error.start}") from None
    if not isinstance(value, str):
        raise ItemError("the text isn't a string")
    if len(value) > MAX_CHARS:
        raise ItemError(f"the text has more than {MAX_CHARS:,} characters")
    if without_surrogates(value) != value:
        raise ItemError("the text isn't Unicode: it holds half of a surrogate pair")
    return value


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
        items: Raw items, and the errors of those that are none.
        form: How the answer looks: of one item, a list of several, or as the Open Inference Protocol has it.
        top_k: Classes that an answer lists.
        id: The client's name for the request, in the Open Inference Protocol.
        outputs: The outputs that it wants, in the Open Inference Protocol, and whether as binary tensors.
        model: The model that it names besides the path, as KServe's client does.

    Raises:
        RequestError: there are no items, or too many.
    """

    items: tuple[Item | ItemError, ...]
    form: Literal["one", "several", "v2"]
    top_k: int = TOP_K
    id: str | None = None
    outputs: Mapping[str, bool] = field(default_factory=lambda: dict.fromkeys(OUTPUTS, False))
    model: str | None = None

    def __post_init__(self) -> None:
        if not self.items:
            raise RequestError("there are no items")
        if len(self.items) > MAX_ITEMS:
            raise RequestError(f"there are {len(self.items)} items: send at most {MAX_ITEMS} at once")
