"""What a client may send, whichever server received it: from a body and its Content-Type to raw items.

The forms are told by the Content-Type, and in JSON by the keys; ``docs/requests.md`` shows each. Reading is strict:
what isn't clearly one of them is refused with the reason. Of several items a bad one becomes an error in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.base.errors import ItemError
from trainyard.http.multipart import Part, parse_multipart
from trainyard.http.protocol_v2 import v2_request
from trainyard.http.request_types import (
    HEADER_LENGTH,
    JSON,
    MAX_ITEMS,
    MULTIPART,
    TOP_K,
    Accepts,
    MediaType,
    Request,
    RequestError,
    Value,
    check_count,
    check_keys,
    parse_media_type,
    shown,
)
from trainyard.http.strict_json import parse_json
from trainyard.preprocess.base import Item

ORIGINAL_TYPE = "X-Trainyard-Content-Type"
"""Header with the client's Content-Type, where a proxy gives the body another one so that a server leaves it alone."""


def parse_request(body: bytes, content_type: str | None, accepts: Accepts) -> Request:
    """Reads a request.

    Args:
        body: The whole body.
        content_type: The header's value.
        accepts: What the model reads.

    Raises:
        RequestError: it is in no form that this model takes, or is no such form in fact.
    """
    type = parse_media_type(content_type or "")
    if type is None or not type.is_one_of(accepts.types):
        raise _refused_type(content_type, accepts)
    if not body:
        raise RequestError("the body is empty")
    if type.name == JSON:
        length = _json_length(type, len(body))
        return json_request(parse_json(body[:length]), accepts, body[length:])
    if type.name == MULTIPART:
        return parts_request(parse_multipart(body, type.parameters.get("boundary"), MAX_ITEMS), accepts)
    return Request((accepts.item(body),), "one")


def json_request(value: Value, accepts: Accepts, tensors: bytes = b"") -> Request:
    """The request that a value of JSON is, parsed already; binary tensors may follow it.

    Raises:
        RequestError: it has not just the keys of one form, or a value that doesn't fit.
    """
    if isinstance(value, dict) and "inputs" in value:
        return v2_request(value, accepts, tensors)
    kind = accepts.kind
    forms = f'{{"{kind}": ...}}, {{"instances": [{{"{kind}": ...}}, ...]}} or {{"inputs": [...]}}'
    if not isinstance(value, dict) or (kind in value) == ("instances" in value) or tensors:
        raise RequestError(f"the JSON is none of {forms}")
    check_keys(value, (kind, "instances", "top_k"), "the JSON")
    top_k = _top_k(value.get("top_k", TOP_K))
    if kind in value:
        return Request((accepts.item(value[kind]),), "one", top_k)
    instances = value["instances"]
    if not isinstance(instances, list):
        raise RequestError("instances isn't a list")
    check_count(len(instances), "instances")
    wrong = ItemError(f'the instance isn\'t {{"{kind}": ...}} with nothing else')
    items = [accepts.item(one[kind]) if isinstance(one, dict) and [*one] == [kind] else wrong for one in instances]
    return Request(tuple(items), "several", top_k)


def parts_request(parts: Sequence[Part], accepts: Accepts) -> Request:
    """The request of a form, of which each field or file is an item."""

    def read(part: Part) -> Item | ItemError:
        if part.type is not None and not part.type.is_one_of(accepts.raw_types):
            return ItemError(f"the part is {part.type.name}, this model takes {_listed(accepts.raw_types)}")
        return accepts.item(part.content)

    check_count(len(parts), "parts")
    return Request(tuple(map(read, parts)), "one" if len(parts) == 1 else "several")


def _json_length(type: MediaType, body: int) -> int:
    """Bytes of a body of so many that are JSON."""
    length = type.parameters.get(HEADER_LENGTH.lower(), str(body))
    if not length.isdecimal() or int(length) > body:
        raise RequestError(f"{HEADER_LENGTH} is {shown(length)}, of a body of {body} bytes")
    return int(length)


def _top_k(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError("top_k is a whole number of at least 1")
    return value


def _refused_type(content_type: str | None, accepts: Accepts) -> RequestError:
    what = f"the Content-Type {shown(content_type, 80)} isn't taken" if content_type else "the Content-Type is missing"
    what_is = "pairs of texts" if accepts.pair else f"{accepts.kind}s"
    utf8 = ", texts in UTF-8" if accepts.kind == "text" else ""
    return RequestError(f"{what}: this model reads {what_is} as {_listed(accepts.types)}{utf8}", 415)


def _listed(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
