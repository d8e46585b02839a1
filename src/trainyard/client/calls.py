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
MOST_BYTES = 3_000_000
"""Of a request's items, 4 MB in base64: less than servers take by default. A larger item goes alone; they decide."""

Instance = bytes | str | ItemError
"""What is sent of an item: an image's bytes, or of a text or a pair an object of JSON; or why nothing can be."""


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
