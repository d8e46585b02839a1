"""What a client may send, whichever server received it: from a body and its Content-Type to raw items.

The forms are told by the Content-Type, and in JSON by the keys; ``docs/requests.md`` shows each. Reading is strict:
what isn't clearly one of them is refused with the reason. Of several items a bad one becomes an error in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from trainyard.base.errors import ItemError
from trainyard.http.multipart import Part, parse_multipart
from trainyard.http.protocol_v2 import v2_request
from trainyard.http.request_types import (
    HEADER_LENGTH,
    JSON,
    MULTIPART,
    TOP_K,
    Accepts,
    Request,
    RequestError,
    Value,
    parse_media_type,
    shown,
)
from trainyard.http.strict_json import StrictObject, parse_json
from trainyard.preprocess.base import Item


class _Rest(StrictObject):
    """What a request in JSON has besides its only item."""

    instances: list[Value] | None = None
    top_k: Annotated[int, Field(ge=1)] = TOP_K


def parse_request(body: bytes, content_type: str | None, accepts: Accepts) -> Request:
    """Reads a request by its whole body, the Content-Type and what the model reads.

    Raises:
        RequestError: it is in no form that this model takes, or is no such form in fact.
    """
    type = parse_media_type(content_type or "")
    if type is None or not type.is_one_of(accepts.types):
        what = f"Content-Type {shown(content_type, 80)} isn't taken" if content_type else "Content-Type is missing"
        items = "pairs of texts" if accepts.pair else f"{accepts.kind}s"
        utf8 = ", texts in UTF-8" if accepts.kind == "text" else ""
        raise RequestError(f"the {what}: this model reads {items} as {' or '.join(accepts.types)}{utf8}", 415)
    if not body:
        raise RequestError("the body is empty")
    if type.name == JSON:
        length = type.parameters.get(HEADER_LENGTH.lower(), str(len(body)))
        if not length.isdecimal() or int(length) > len(body):
            raise RequestError(f"{HEADER_LENGTH} is {shown(length)}, of a body of {len(body)} bytes")
        return json_request(parse_json(body[: int(length)]), accepts, body[int(length) :])
    if type.name == MULTIPART:
        return parts_request(parse_multipart(body, type.parameters.get("boundary")), accepts)
    return Request((accepts.item(body),), "one")


def json_request(value: Value, accepts: Accepts, tensors: bytes = b"") -> Request:
    """The request that a value of JSON is, parsed already; binary tensors may follow it.

    Raises:
        RequestError: it has not just the keys of one form, or a value that doesn't fit.
    """
    if isinstance(value, dict) and "inputs" in value:
        return v2_request(value, accepts, tensors)
    kind = accepts.kind
    if not isinstance(value, dict) or (kind in value) == ("instances" in value) or tensors:
        forms = f'{{"{kind}": ...}}, {{"instances": [{{"{kind}": ...}}, ...]}} or {{"inputs": [...]}}'
        raise RequestError(f"the JSON is none of {forms}")
    rest = _Rest.read({key: value[key] for key in value if key != kind})
    if kind in value:
        return Request((accepts.item(value[kind]),), "one", rest.top_k)

    def read(instance: Value) -> Item | ItemError:
        if isinstance(instance, dict) and [*instance] == [kind]:
            return accepts.item(instance[kind])
        return ItemError(f'the instance isn\'t {{"{kind}": ...}} with nothing else')

    return Request(tuple(map(read, rest.instances or ())), "several", rest.top_k)


def parts_request(parts: Sequence[Part], accepts: Accepts) -> Request:
    """The request of a form, of which each field or file is an item."""

    def read(part: Part) -> Item | ItemError:
        if part.type is None or part.type.is_one_of(accepts.raw_types):
            return accepts.item(part.content)
        return ItemError(f"the part is {part.type.name}, this model takes {' or '.join(accepts.raw_types)}")

    return Request(tuple(map(read, parts)), "one" if len(parts) == 1 else "several")
