"""From items to the bodies of requests: a bounded number of items and bytes in each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from trainyard.base.errors import ItemError, UsageError
from trainyard.http.request_types import JSON, OCTETS, TOP_K
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import check_regular
from trainyard.preprocess.text import without_surrogates

MOST_ITEMS = 32
"""Items of a request: a batch of the predictor."""
MOST_BYTES = 4_000_000
"""Bytes of a request's items, below what servers take by default; a larger item goes alone, and the server decides."""

T = TypeVar("T")


class Request(NamedTuple):
    """A request to a path below the server's URL; without a body it asks for what is there."""

    path: str
    body: bytes | None = None
    content_type: str = JSON

    @property
    def method(self) -> str:
        """``POST`` if there is something to send."""
        return "GET" if self.body is None else "POST"

    @property
    def headers(self) -> dict[str, str]:
        """Says what the body is."""
        return {} if self.body is None else {"Content-Type": self.content_type}


READY = Request("v2/health/ready")
MODELS = Request("v2/models")


class Instance(NamedTuple):
    """An item that can be sent: the bytes of an image, or the JSON of a text or of a pair."""

    content: bytes
    is_image: bool  # told by the item itself: a client has no preprocessor

    def json(self) -> bytes:
        """An element of ``instances``."""
        return b'{"image": "%s"}' % base64.b64encode(self.content) if self.is_image else b'{"text": %s}' % self.content

    @property
    def size(self) -> int:
        """Bytes of its JSON, about."""
        return len(self.content) * 4 // 3 if self.is_image else len(self.content)


@dataclass(frozen=True)
class Call:
    """Some items that are asked about in one request.

    Attributes:
        instances: For each item in order what is sent of it, or why it can't be.
        top_k: Classes to tell of each.
    """

    instances: Sequence[Instance | ItemError]
    top_k: int

    @property
    def sent(self) -> list[Instance]:
        """What is sent."""
        return [instance for instance in self.instances if isinstance(instance, Instance)]

    @property
    def is_raw(self) -> bool:
        """Whether it is one image, which goes as it is and a quarter smaller; ``top_k`` has a place in JSON alone."""
        return len(self.sent) == 1 and self.sent[0].is_image and self.top_k == TOP_K

    def request(self, model: str, version: str | None) -> Request:
        """The request for these predictions."""
        path = _path("predictions", model, *([version] if version else []))
        if self.is_raw:
            return Request(path, self.sent[0].content, OCTETS)
        instances = b", ".join(instance.json() for instance in self.sent)
        return Request(path, b'{"top_k": %d, "instances": [%s]}' % (self.top_k, instances))

    def alone(self) -> Iterator[Call]:
        """Each item in a call of its own."""
        return (Call([instance], self.top_k) for instance in self.instances)

    def fill(self, answers: Iterable[T]) -> list[T | ItemError]:
        """Puts the answers of what was sent, in order, in between what wasn't."""
        rest = iter(answers)
        return [instance if isinstance(instance, ItemError) else next(rest) for instance in self.instances]


def split(items: Iterable[Item], top_k: int) -> Iterator[Call]:
    """Splits items into calls, in order; files are read when their call's turn comes.

    Raises:
        UsageError: ``top_k`` is below 1.
    """
    if top_k < 1:
        raise UsageError(f"top_k={top_k} must be at least 1")
    instances: list[Instance | ItemError] = []
    size = 0
    for item in items:
        instance = _instance(item)
        length = instance.size if isinstance(instance, Instance) else 0
        if instances and (len(instances) == MOST_ITEMS or size + length > MOST_BYTES):
            yield Call(instances, top_k)
            instances, size = [], 0
        instances.append(instance)
        size += length
    if instances:
        yield Call(instances, top_k)


def model_request(model: str) -> Request:
    """Asks what a model is."""
    return Request(_path("v2", "models", model))


def _path(*words: str) -> str:
    return "/".join(quote(word, safe="") for word in words)


def _instance(item: Item) -> Instance | ItemError:
    match item:
        case bytes():
            return Instance(item, is_image=True)
        case Path():
            try:
                check_regular(item)
                return Instance(item.read_bytes(), is_image=True)
            except ItemError as error:
                return error
            except OSError as error:
                return ItemError(f"{item} can't be read ({error.strerror})")
        case str():
            return _text(without_surrogates(item))
        case (str(), str()):
            return _text([without_surrogates(text) for text in item])
    return ItemError(f"an item is an image (bytes or a Path), a text or a pair of texts, not {type(item).__name__}")


def _text(text: str | list[str]) -> Instance:
    return Instance(json.dumps(text).encode(), is_image=False)
