"""What a client may send, form by form, and what is refused with which reason."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.base.errors import ItemError
from trainyard.http.request_types import (
    MAX_CHARS,
    MAX_ITEMS,
    TOP_K,
    Accepts,
    MediaType,
    Request,
    RequestError,
    parse_media_type,
)
from trainyard.http.requests import parse_request

DOCUMENT = Path(__file__).parents[3] / "docs" / "requests.md"
IMAGES, TEXTS, PAIRS = Accepts("image"), Accepts("text"), Accepts("text", pair=True)
PIXELS = b"\x89PNG pixels"
BASE64 = base64.b64encode(PIXELS).decode()


def parse(value: object, accepts: Accepts = TEXTS, content_type: str = "application/json") -> Request:
    return parse_request(value if isinstance(value, bytes) else json.dumps(value).encode(), content_type, accepts)


def refusal(value: object, accepts: Accepts = TEXTS, content_type: str = "application/json") -> str:
    with pytest.raises(RequestError) as caught:
        parse(value, accepts, content_type)
    assert len(str(caught.value)) < 400
    return f"{caught.value.status} {caught.value}"


def fault(value: object, accepts: Accepts = TEXTS, content_type: str = "application/json") -> str:
    """Why the only item of a request is none."""
    [item] = parse(value, accepts, content_type).items
    assert isinstance(item, ItemError)
    assert len(str(item)) < 200
    return str(item)


def tensor(data: Sequence[object], shape: list[object] | None = None, **changes: object) -> dict[str, object]:
    shape = [len(data)] if shape is None else shape
    return {"inputs": [{"name": "text", "shape": shape, "datatype": "BYTES", "data": data, **changes}]}


def form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    pieces = [f"--B\r\nContent-Disposition: form-data; name=a{head}\r\n\r\n".encode() + body for head, body in parts]
    return b"".join(piece + b"\r\n" for piece in pieces) + b"--B" + end


MULTIPART = "multipart/form-data; boundary=B"
PNG = "; filename=a.png\r\nContent-Type: image/png"


# What is taken


@pytest.mark.parametrize("type", ["image/png", "IMAGE/JPEG", "application/octet-stream", "image/x; q=1"])
def test_an_image_is_its_bytes(type: str) -> None:
    assert parse(PIXELS, IMAGES, type) == Request((PIXELS,), "one", TOP_K)


@pytest.mark.parametrize("type", ["text/plain", "text/plain;charset=UTF-8", 'Text/Plain; charset="utf-8";'])
def test_a_text_is_utf_8(type: str) -> None:
    assert parse("bücher\n".encode(), TEXTS, type).items == ("bücher\n",)
    assert parse("\ufeffbücher".encode(), TEXTS, type).items == ("bücher",)


@pytest.mark.parametrize("type", ["application/json", "application/json; charset=utf-8", "Application/JSON;"])
def test_json_is_one_item_or_several(type: str) -> None:
    assert parse({"text": "late", "top_k": 5}, TEXTS, type) == Request(("late",), "one", 5)
    assert parse(b'\xef\xbb\xbf{"text": "late"}', TEXTS, type) == Request(("late",), "one")
    assert parse({"instances": [{"text": "a"}, {"text": "b"}]}, TEXTS, type) == Request(("a", "b"), "several")
    assert parse({"image": BASE64}, IMAGES, type) == Request((PIXELS,), "one")
    assert parse({"instances": [{"image": BASE64}]}, IMAGES, type) == Request((PIXELS,), "several")
    assert parse({"text": ["a", "b"]}, PAIRS, type) == Request((("a", "b"),), "one")
    assert parse({"instances": [{"text": ["a", "b"]}]}, PAIRS, type) == Request((("a", "b"),), "several")


def test_a_form_has_an_item_in_each_part() -> None:
    assert parse(form((PNG, PIXELS)), IMAGES, MULTIPART) == Request((PIXELS,), "one")
    two = parse(form((PNG, b"\r\n--A\r\n"), ("", PIXELS)), IMAGES, 'multipart/form-data; boundary="B"')
    assert two == Request((b"\r\n--A\r\n", PIXELS), "several")
    assert parse(form(("", b"late"), ("\r\ncontent-type: text/plain", b""), end=b"--"), TEXTS, MULTIPART) == Request(
        ("late", ""), "several"
    )


def test_the_open_inference_protocol_is_told_by_its_key() -> None:
    assert parse(tensor(["a", "b"])) == Request(("a", "b"), "v2")
    image = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [BASE64]}], "id": "7"}
    assert parse(image, IMAGES) == Request((PIXELS,), "v2", id="7")
    for data in (["a", "b", "c", "d"], [["a", "b"], ["c", "d"]]):
        assert parse(tensor(data, [2, 2]), PAIRS).items == (("a", "b"), ("c", "d"))
    wanted = {"outputs": [{"name": "label", "parameters": {"binary_data": False}}], "parameters": {"a": 1}}
    assert parse({**tensor(["a"], parameters={}), **wanted}).outputs == {"label": False}
    assert parse({**tensor(["a"]), "model_name": "m"}).model == "m"
    nothing = dict.fromkeys(("id", "model_name", "parameters", "outputs"))
    assert parse({**tensor(["a"]), **nothing}) == Request(("a",), "v2"), "null is as if it weren't there"


def packed(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def binary(tensors: bytes, shape: list[int], name: str = "text", length: object = None, **changes: object):
    """A request in JSON with binary tensors behind it, and its type, as the gateway passes both on."""
    given = {"name": name, "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(tensors)}}
    head = json.dumps({"inputs": [{**given, **changes}]}).encode()
    size = len(head) if length is None else length
    return head + tensors, f"application/json; inference-header-content-length={size}"


def test_a_binary_tensor_holds_items_as_they_are() -> None:
    texts, type = binary(packed("bücher".encode(), b"", b"\xff"), [3])
    items = parse(texts, TEXTS, type).items
    assert items[:2] == ("bücher", "")
    assert "isn't UTF-8" in str(items[2])
    images, type = binary(packed(PIXELS, b"{"), [2], "image")
    assert parse(images, IMAGES, type).items == (PIXELS, b"{")
    pairs, type = binary(packed(b"a", b"b", b"c", b"d"), [2, 2])
    assert parse(pairs, PAIRS, type).items == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("wanted", "outputs"),
    [
        ({"parameters": {"binary_data_output": True}}, {"label": True, "probabilities": True}),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, {"label": True}),
        ({"outputs": [{"name": "label"}], "parameters": {"binary_data_output": True}}, {"label": True}),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
          "parameters": {"binary_data_output": True}}, {"label": False, "probabilities": True}),
        ({"parameters": {"binary_data_output": 1}}, {"label": False, "probabilities": False}),
    ],
)  # fmt: skip
def test_answers_may_be_wanted_in_binary(wanted: dict[str, object], outputs: dict[str, bool]) -> None:
    assert parse({**tensor(["a"]), **wanted}).outputs == outputs


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (binary(packed(b"a"), [1], length=9999), "Inference-Header-Content-Length is '9999', of a body"),
        (binary(packed(b"a"), [1], length="-1"), "Inference-Header-Content-Length is '-1', of a body"),
        (binary(packed(b"a"), [2]), r"isn't [1]"),
        (binary(packed(b"a") + b"\1\0\0", [2]), "end in the middle of a value"),
        (binary(b"\xff\xff\xff\xff", [1]), "end in the middle of a value"),
        (binary(packed(*[b""] * 129), [129]), "there are 129 items: send at most 128"),
        (binary(b"", [0]), "there are no items"),
        (binary(packed(b"a"), [1], data=["a"]), "5 bytes follow the JSON"),
        (binary(packed(b"a"), [1], parameters={"binary_data_size": 6}), "5 bytes follow the JSON"),
        (binary(packed(b"a"), [1], parameters={}), "5 bytes follow the JSON"),
        ((b'{"text": "a"}bcd', "application/json; inference-header-content-length=13"), "the JSON is none of"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_refused(request_: tuple[bytes, str], reason: str) -> None:
    assert reason in refusal(request_[0], TEXTS, request_[1])


@given(st.binary(max_size=40), st.integers(-1, 3), st.booleans())
def test_any_bytes_in_a_tensor(tensors: bytes, count: int, is_pair: bool) -> None:
    body, type = binary(tensors, [count, 2] if is_pair else [count])
    with contextlib.suppress(RequestError):
        assert len(parse(body, PAIRS if is_pair else TEXTS, type).items) == count


# What isn't


@pytest.mark.parametrize("accepts", [IMAGES, TEXTS, PAIRS])
@pytest.mark.parametrize(
    "type",
    ["", "text/html", "image", "image/", "application/x-www-form-urlencoded", "application/json; charset=latin-1",
     "text/plain; charset=utf-16", "text/plain; charset=utf-8; charset=utf-8", "a/b;" + "c=d;" * 999, "image/\u00e9"],
)  # fmt: skip
def test_other_types_are_refused_with_those_that_are_taken(type: str, accepts: Accepts) -> None:
    reason = refusal(b"{}", accepts, type)

    assert reason.startswith("415 the Content-Type")
    assert all(name in reason for name in accepts.types)


def test_a_type_that_does_not_fit_the_task_is_refused() -> None:
    assert "images as image/*" in refusal(b"late", IMAGES, "text/plain")
    assert "texts as text/plain or multipart/form-data or application/json" in refusal(PIXELS, TEXTS, "image/png")
    assert "pairs of texts as application/json" in refusal(b"late", PAIRS, "text/plain")
    assert "pairs of texts as application/json" in refusal(form(("", b"late")), PAIRS, MULTIPART)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b"{", "isn't valid JSON: Expecting property name"),
        (b"\xff", "isn't UTF-8 at byte 0"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
        (b'{"text": "a", "text": "a"}', "the key 'text' twice"),
        (b'{"instances": [{"text": "a", "text": "b"}]}', "the key 'text' twice"),
        (b'{"text": NaN}', "NaN isn't JSON"),
        (b'{"text": -Infinity}', "-Infinity isn't JSON"),
        (b'{"text": "a", "top_k": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"text": "a"} x', "Extra data"),
        (b'{"text": "\n"}', "Invalid control character"),
        (b"[" * 10_000 + b"]" * 10_000, "too deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too deep"),
        (b"[" * 5_000_000, "too many values"),
        (b'{"instances": [' + b"{}," * 20_000 + b"{}]}", "too many values"),
        (b"{" + b",".join(b'"%d":1' % i for i in range(20_001)) + b"}", "too many values"),
        (b'"' * 30_000 + b"," * 30_000, "too many values"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, reason: str) -> None:
    assert reason in refusal(body)


def test_what_a_text_holds_is_not_counted() -> None:
    code = '[{"\\":,' * 10_000

    assert parse({"instances": [{"text": code}, {"text": "a"}]}).items == (code, "a")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "none of"),
        ([], "none of"),
        ("late", "none of"),
        ({}, "none of"),
        ({"image": BASE64}, "none of"),
        ({"text": "a", "instances": []}, "none of"),
        ({"text": "a", "topk": 3}, "unknown key 'topk'"),
        ({"text": "a", "\ud83d" * 99: 3}, "at 'its keys': Input should be a valid string"),
        ({"instances": []}, "no items"),
        ({"instances": {"text": "a"}}, "at 'instances': Input should be a valid list"),
        ({"instances": [{"text": "a"}] * (MAX_ITEMS + 1)}, f"at most {MAX_ITEMS}"),
        *(({"text": "a", "top_k": top_k}, "top_k") for top_k in (0, -1, 1.0, True, "3", None, [])),
    ],
)
def test_json_of_no_form_is_refused(value: object, reason: str) -> None:
    assert reason in refusal(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the text isn't a string"),
        (True, "the text isn't a string"),
        (7, "the text isn't a string"),
        ({}, "the text isn't a string"),
        (["a", "b"], "the text isn't a string"),
        ("\ud83d", "half of a surrogate"),
        ("a" * (MAX_CHARS + 1), "more than 100,000 characters"),
    ],
)
def test_a_text_that_is_none_is_the_fault_of_its_item(value: object, reason: str) -> None:
    assert reason in fault({"text": value})
    several = parse({"instances": [{"text": "a"}, {"text": value}, {"text": "a" * MAX_CHARS}]})
    assert [isinstance(item, ItemError) for item in several.items] == [False, True, False]
    assert reason in fault({"text": ["a", value]}, PAIRS) or isinstance(value, list)
    assert reason in fault(tensor([value]))


@pytest.mark.parametrize("value", ["a", ["a"], ["a", "b", "c"], {"a": "b"}])
def test_a_pair_has_two_texts(value: object) -> None:
    assert "a list of two strings" in fault({"text": value}, PAIRS)


@pytest.mark.parametrize("value", ["", "%", BASE64[:-1], BASE64 + "\n", f"data:image/png;base64,{BASE64}", "é", 7])
def test_an_image_that_is_not_base64_is_the_fault_of_its_item(value: object) -> None:
    assert "the image is" in fault({"image": value}, IMAGES)


@pytest.mark.parametrize("instance", [None, "a", [], {}, {"text": "a", "top_k": 3}, {"txt": "a"}, {"image": BASE64}])
def test_an_instance_has_just_its_key(instance: object) -> None:
    assert fault({"instances": [instance]}) == 'the instance isn\'t {"text": ...} with nothing else'


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"\xff", "UTF-8 at byte 0"), (b"a" * 10_000_000, "more than"), ("é".encode() * 100_001, "more than")],
)  # fmt: skip
def test_a_plain_text_is_checked_too(body: bytes, reason: str) -> None:
    assert reason in fault(body, TEXTS, "text/plain")
    assert reason in fault(form(("", body)), TEXTS, MULTIPART)


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "application/json", MULTIPART])
def test_an_empty_body_is_refused(content_type: str) -> None:
    assert refusal(b"", IMAGES, content_type).startswith("400 ")


GOOD = form((PNG, PIXELS))


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (GOOD, "multipart/form-data", "no boundary"),
        (GOOD, "multipart/form-data; boundary=", "415"),
        (GOOD, 'multipart/form-data; boundary="é"', "doesn't begin"),
        (GOOD, "multipart/form-data; boundary=C", "doesn't begin"),
        (GOOD, 'multipart/form-data; boundary="\udcff"', "doesn't begin"),
        (b"before\r\n" + GOOD, MULTIPART, "doesn't begin"),
        (GOOD[:-4], MULTIPART, "closing boundary"),
        (GOOD[:40], MULTIPART, "closing boundary"),
        (GOOD + b"more", MULTIPART, "closing boundary"),
        (GOOD + GOOD, MULTIPART, "no valid headers"),
        (b"--B--\r\n", MULTIPART, "there are no items"),
        (b"--B\r\nbody\r\n--B--", MULTIPART, "no valid headers"),
        (b"--Bx" + GOOD[3:], MULTIPART, "no valid headers"),
        (b"--B\r\nContent-Type: image/png\r\n\r\nbody\r\n--B--", MULTIPART, "no Content-Disposition"),
        (form(("\r\nContent-Disposition: form-data", b"")), MULTIPART, "one twice"),
        (form(("\r\nno header", b"")), MULTIPART, "isn't one"),
        (form(("\r\nContent-Type: image", b"")), MULTIPART, "invalid Content-Type"),
        (form(("\r\nContent-Transfer-Encoding: base64", b"")), MULTIPART, "Content-Transfer-Encoding"),
        (form(("\r\nX: " + "x" * 9000, b"")), MULTIPART, "no valid headers"),
        (form(*[("", b"a")] * (MAX_ITEMS + 1)), MULTIPART, f"more than {MAX_ITEMS} parts"),
    ],
)
def test_a_form_that_is_cut_off_or_ambiguous_is_refused(body: bytes, content_type: str, reason: str) -> None:
    assert reason in refusal(body, IMAGES, content_type)


def test_a_form_may_have_so_many_parts() -> None:
    assert len(parse(form(*[("", b"a")] * MAX_ITEMS), TEXTS, MULTIPART).items) == MAX_ITEMS


def test_a_part_of_another_type_is_its_own_fault() -> None:
    mixed = parse(form((PNG, PIXELS), ("\r\nContent-Type: text/plain", b"late")), IMAGES, MULTIPART)

    assert mixed.items[0] == PIXELS
    assert str(mixed.items[1]) == "the part is text/plain, this model takes image/* or application/octet-stream"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"inputs": None}, "at 'inputs': Input should be a valid list"),
        ({"inputs": []}, "at 'inputs': List should have at least 1 item"),
        ({"inputs": tensor(["a"])["inputs"] * 2}, "at 'inputs': List should have at most 1 item"),  # type: ignore[operator]
        ({**tensor(["a"]), "text": "a"}, "unknown key 'text'"),
        ({**tensor(["a"]), "id": 7}, "at 'id': Input should be a valid string"),
        ({**tensor(["a"]), "model_name": 7}, "at 'model_name': Input should be a valid string"),
        ({**tensor(["a"]), "id": "\ud83d"}, "id isn't"),
        ({**tensor(["a"]), "parameters": []}, "parameters"),
        ({**tensor(["a"]), "parameters": {"a": {}}}, "parameters"),
        ({**tensor(["a"]), "outputs": {"name": "label"}}, "outputs"),
        ({**tensor(["a"]), "outputs": [{"name": "logits"}]}, "outputs"),
        ({**tensor(["a"]), "outputs": [{"name": ["label"]}]}, "outputs"),
        (tensor(["a"], extra=1), "unknown key 'inputs.0.extra'"),
        (tensor(["a"], name="image"), "the name text"),
        (tensor(["a"], datatype="FP32"), "BYTES"),
        (tensor("a"), "at 'inputs.0.data': Input should be a valid list"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}, "no list of data"),
        (tensor([]), "no items"),
        (tensor(["a"], [2]), "isn't [1]"),
        (tensor(["a"], [1, 1]), "isn't [1]"),
        (tensor(["a"], [True]), "at 'inputs.0.shape.0': Input should be a valid integer"),
        (tensor(["a"], [1.0]), "at 'inputs.0.shape.0': Input should be a valid integer"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "data": ["a"]}]}, "at 'inputs.0.shape': Field required"),
        (tensor(["a"] * (MAX_ITEMS + 1)), f"at most {MAX_ITEMS}"),
    ],
)
def test_tensors_that_are_not_the_models_are_refused(value: object, reason: str) -> None:
    assert reason in refusal(value)


def test_tensors_of_pairs_have_two_columns() -> None:
    assert "isn't [1, 2]" in refusal(tensor(["a", "b"]), PAIRS)
    assert "isn't [2, 2]" in refusal(tensor(["a", "b", "c"], [3]), PAIRS)
    items = parse(tensor([["a", "b"], ["c"], "d"], [3, 2]), PAIRS).items
    assert [isinstance(item, ItemError) for item in items] == [False, True, True]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b", MediaType("a/b", {})),
        (" A/B ; C=d ", MediaType("a/b", {"c": "d"})),
        ('a/b;c="d;\\"e"', MediaType("a/b", {"c": 'd;"e'})),
        ("a/b;;c=d;", MediaType("a/b", {"c": "d"})),
        ("a/b;c", None),
        ("a/b;c=d e", None),
        ('a/b;c="d', None),
        ("a/b;c=d;C=e", None),
        ("a/b, c/d", None),
        ("a/b\n", None),
    ],
)
def test_media_types_are_read_as_rfc_9110_has_them(value: str, expected: MediaType | None) -> None:
    assert parse_media_type(value) == expected


def test_what_the_document_shows_is_taken() -> None:
    """Each JSON body in it, by a model of the kind that it names."""
    shown = re.findall(r"-d '(\{.*?\})'", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    kinds = [(accepts, parse_request(body.encode(), "application/json", accepts))
             for body in shown for accepts in (IMAGES, TEXTS, PAIRS) if _fits(body, accepts)]  # fmt: skip
    for _, request in kinds:
        assert not any(isinstance(item, ItemError) for item in request.items)
    assert len(kinds) == len(shown)
    assert {(accepts, request.form) for accepts, request in kinds} >= {
        (IMAGES, "one"), (TEXTS, "one"), (TEXTS, "several"), (TEXTS, "v2"), (PAIRS, "one"), (PAIRS, "v2"),
    }  # fmt: skip


def _fits(body: str, accepts: Accepts) -> bool:
    try:
        return not any(isinstance(item, ItemError) for item in parse(body.encode(), accepts).items)
    except RequestError:
        return False
