"""What a client may send, whichever server received it: from a body and its Content-Type to raw items.

The forms are told by the Content-Type, and in JSON by the keys; ``docs/requests.md`` shows each. Reading is strict:
what isn't clearly one of them is refused with the reason. Of several items a bad one becomes an error in its place.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainyard.base.errors import ItemError
from trainyard.http.batch import Sent
from trainyard.http.request_types import (
    HEADER_LENGTH,
    JSON,
    MAX_ITEMS,
    MULTIPART,
    OUTPUTS,
    TOP_K,
    Accepts,
    Request,
    RequestError,
    Value,
    parse_media_type,
    shown,
)
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import without_surrogates

MAX_MARKS = 20_000
"""Strings, brackets and commas in a JSON text. No request needs a tenth of them, and ``[{},{},...]`` takes 25 times its
size in memory."""

_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[|\{|,', re.DOTALL)  # possessive and never failing: in linear time
_MAX_HEADER_BYTES = 8192
"""Of a part of a form."""


class _Strict(BaseModel):
    """An object of a request: no key but its own is taken, and no value of another type, ``true`` for 1 among them."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    @classmethod
    def read(cls, value: Value) -> Self:
        """It, of parsed JSON; a ``RequestError`` says where and why it is none."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = shown(".".join(map(str, first["loc"])) or "its keys")
            if first["type"] == "extra_forbidden":
                raise RequestError(f"the JSON has the unknown key {place}") from None
            raise RequestError(f"the JSON isn't valid at {place}: {first['msg']}") from None


class _Rest(_Strict):
    """What a request in JSON has besides its only item."""

    instances: list[Value] | None = None
    top_k: Annotated[int, Field(ge=1)] = TOP_K


class _Object(_Strict):
    """The Open Inference Protocol allows parameters anywhere; those for binary tensors alone have an effect."""

    parameters: dict[str, str | int | float | bool | None] | None = None

    def parameter(self, name: str, default: Value = None) -> Value:
        return (self.parameters or {}).get(name, default)


class _Input(_Object):
    name: str
    datatype: Literal["BYTES"]
    shape: list[int]
    data: list[Value] | None = None


class _Output(_Object):
    name: Literal["label", "probabilities"]


class _Infer(_Object):
    """A request of the Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it."""

    id: str | None = None
    model_name: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: list[_Output] | None = None


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
        return json_request(_parse_json(body[: int(length)]), accepts, body[int(length) :])
    if type.name == MULTIPART:
        return parts_request(_parse_multipart(body, type.parameters.get("boundary")), accepts)
    return Request((accepts.item(body),), "one")


def _parse_json(body: bytes) -> Value:
    """A JSON text in UTF-8, with no key twice, no number that JSON doesn't know, and neither too deep nor too much."""
    # Before anything is made of them; closely only where there are many, which a text may hold too.
    if sum(map(body.count, b"[{,")) > MAX_MARKS and any(islice(_MARK.finditer(body), MAX_MARKS, None)):
        raise _invalid("JSON", "it has too many values")
    try:
        text = body.decode().removeprefix("\ufeff")  # the mark that Windows puts before it
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_unknown)
    except UnicodeDecodeError as error:
        raise _invalid("JSON", f"it isn't UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _invalid("JSON", f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _invalid("JSON", "it is too deep") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise _invalid("JSON", "a number in it is too long") from None


def _distinct(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _invalid("JSON", f"it has the key {shown(twice)} twice")
    return found


def _unknown(constant: str) -> NoReturn:
    raise _invalid("JSON", f"{constant} isn't JSON")


def json_request(value: Value, accepts: Accepts, tensors: bytes = b"") -> Request:
    """The request that a value of JSON is, parsed already; binary tensors may follow it.

    Raises:
        RequestError: it has not just the keys of one form, or a value that doesn't fit.
    """
    if isinstance(value, dict) and "inputs" in value:
        return _v2_request(value, accepts, tensors)
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


def _v2_request(value: Value, accepts: Accepts, tensors: bytes) -> Request:
    """The request that an object with the key ``inputs`` is, with the binary tensors that follow its JSON."""
    asked = _Infer.read(value)
    if asked.id and without_surrogates(asked.id) != asked.id:
        raise RequestError("the id isn't Unicode: it holds half of a surrogate pair")
    binary = asked.parameter("binary_data_output")
    outputs: dict[str, bool] = {one.name: one.parameter("binary_data", binary) is True for one in asked.outputs or ()}
    items = tuple(map(accepts.item, _data(asked.inputs[0], accepts, tensors)))
    return Request(
        items, "v2", id=asked.id, outputs=outputs or dict.fromkeys(OUTPUTS, binary is True), model=asked.model_name
    )


def _data(tensor: _Input, accepts: Accepts, tensors: bytes) -> list[Value]:
    """The values of an input, one of each item."""
    if tensor.name != accepts.kind:
        raise RequestError(f"this model's input has the name {accepts.kind}")
    data, size = tensor.data, tensor.parameter("binary_data_size")
    if tensors or size is not None:
        if size is True or size != len(tensors) or data is not None:  # true is equal to 1
            raise RequestError(f"{len(tensors)} bytes follow the JSON: the input has this binary_data_size and no data")
        data = _unpacked(tensors)
    if data is None:
        raise RequestError("the input has no list of data")
    if accepts.pair and not any(isinstance(value, list) for value in data):
        data = [data[i : i + 2] for i in range(0, len(data), 2)]  # the protocol lets tensors be flat or nested
    expected = [len(data), 2] if accepts.pair else [len(data)]
    if tensor.shape != expected:
        raise RequestError(f"the shape of the input isn't {expected}, as its data are")
    return data


def _unpacked(tensors: bytes) -> list[Value]:
    """The values of a tensor of bytes, of which each stands behind its length, in four bytes with the lowest first."""
    values: list[Value] = []
    at = 0
    while at < len(tensors):
        start = at + 4
        at = start + int.from_bytes(tensors[at:start], "little")
        if at > len(tensors) or len(values) == 2 * MAX_ITEMS:
            why = f"end in the middle of a value, or hold more than {MAX_ITEMS} items"
            raise RequestError(f"the binary data of the input {why}")
        values.append(tensors[start:at])
    return values


def _parse_multipart(body: bytes, boundary: str | None) -> list[Sent]:
    """The fields and files of a body that its Content-Type's boundary divides, in their order, whatever their names."""
    if not boundary:
        raise _invalid(MULTIPART, "the Content-Type has no boundary")
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(errors="replace"), MAX_ITEMS + 2)
    if before or not parts:
        raise _invalid(MULTIPART, "it doesn't begin with the boundary")
    if len(parts) > MAX_ITEMS + 1:
        raise _invalid(MULTIPART, f"it has more than {MAX_ITEMS} parts")
    if parts.pop() not in (b"--", b"--\r\n"):
        raise _invalid(MULTIPART, "it doesn't end with the closing boundary")
    return [_part(part) for part in parts]


def _part(part: bytes) -> Sent:
    head, blank, content = part.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    found = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, colon, value in found if name and colon}
    if not blank or start or len(head) > _MAX_HEADER_BYTES or len(headers) < len(found):
        raise _invalid(MULTIPART, "a part has no valid headers, or a header that isn't one, or one twice")
    if headers.get("content-disposition", "").partition(";")[0].strip().lower() != "form-data":
        raise _invalid(MULTIPART, "a part has no Content-Disposition: form-data")
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise _invalid(MULTIPART, "a part has a Content-Transfer-Encoding: send its bytes as they are")
    return Sent(headers.get("content-type", ""), content)


def parts_request(parts: Sequence[Sent], accepts: Accepts) -> Request:
    """The request of a form, of which each field or file is an item, whatever it is if it doesn't say.

    Raises:
        RequestError: there are no parts or too many, or what one says of its type isn't a type.
    """

    def read(part: Sent) -> Item | ItemError:
        type = parse_media_type(part.content_type)
        if type is None and part.content_type:
            raise _invalid(MULTIPART, "a part has an invalid Content-Type")
        if type is None or type.is_one_of(accepts.raw_types):
            return accepts.item(part.body)
        return ItemError(f"the part is {type.name}, this model takes {' or '.join(accepts.raw_types)}")

    return Request(tuple(map(read, parts)), "one" if len(parts) == 1 else "several")


def _invalid(type: str, why: str) -> RequestError:
    return RequestError(f"the body isn't valid {type}: {why}")
