"""From items to the bodies of requests: a bounded number of items and bytes in each."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
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

Instance = bytes | str | list[str] | ItemError
"""What is sent of an item: of an image its bytes, of a text or a pair what JSON says of it; or why nothing can be."""


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
    """Some items that are asked about in one request.

    Attributes:
        instances: For each item in order what is sent of it, or why it can't be.
        top_k: Classes to tell of each.
    """

    instances: list[Instance]
    top_k: int

    @property
    def sent(self) -> list[bytes | str | list[str]]:
        """What is sent."""
        return [instance for instance in self.instances if not isinstance(instance, ItemError)]

    def request(self, model: str, version: str | None) -> Request:
        """The request for these predictions; one image goes as it is, a quarter smaller, where nothing else is said."""
        path = path_of("predictions", model, *([version] if version else []))
        match self.sent:
            case [bytes(image)] if self.top_k == TOP_K:
                return Request(path, image, OCTETS)
        instances = [
            {"image": base64.b64encode(one).decode()} if isinstance(one, bytes) else {"text": one} for one in self.sent
        ]
        return Request(path, json.dumps({"top_k": self.top_k, "instances": instances}).encode())


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
        length = _size(instance)
        if instances and (len(instances) == MOST_ITEMS or size + length > MOST_BYTES):
            yield Call(instances, top_k)
            instances, size = [], 0
        instances.append(instance)
        size += length
    if instances:
        yield Call(instances, top_k)


def path_of(*words: str) -> str:
    """A path of these words, whatever is in them."""
    return "/".join(quote(word, safe="") for word in words)


def _instance(item: Item) -> Instance:
    match item:  # told by the item itself: a client has no preprocessor
        case bytes():
            return item
        case Path():
            try:
                check_regular(item)
                return item.read_bytes()
            except ItemError as error:
                return error
            except OSError as error:
                return ItemError(f"{item} can't be read ({error.strerror})")
        case str():
            return without_surrogates(item)
        case (str(), str()):
            return [without_surrogates(text) for text in item]
    return ItemError(f"an item is an image (bytes or a Path), a text or a pair of texts, not {type(item).__name__}")


def _size(instance: Instance) -> int:
    """Bytes of it in JSON, about."""
    match instance:
        case bytes():
            return len(instance) * 4 // 3
        case ItemError():
            return 0
    return len(json.dumps(instance))
