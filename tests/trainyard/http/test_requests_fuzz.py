"""Whatever a client sends, it is answered or refused: no other error leaves the parser or the predictor."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainyard.base.errors import ItemError
from trainyard.http.request_types import Accepts, RequestError
from trainyard.http.requests import json_request, parse_request
from trainyard.http.responses import Reply, Responder
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.image import ImagePreprocessor

same_predictor = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def saved(format: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((23, 17), 90).convert(mode).save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6
    tags[0x010E] = "a description"
    return tags


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (23, 17), "red")]}
FILES = [
    saved("JPEG", exif=exif()), saved("JPEG", progressive=True), saved("JPEG", "CMYK"), saved("PNG", exif=exif()),
    saved("PNG", "P", transparency=3), saved("PNG", "RGBA"), saved("PNG", "1"), saved("PNG", "I;16"),
    saved("PNG", **FRAMES), saved("WEBP", exif=exif()), saved("WEBP", **FRAMES), saved("GIF", **FRAMES), saved("BMP"),
    saved("BMP", "P"), saved("TIFF", compression="tiff_lzw"), saved("TIFF", "F"), saved("TIFF", compression="jpeg"),
    saved("PPM"), saved("PPM", "L"), b"P3 3 2 255 " + b"1 2 3 " * 6,
]  # fmt: skip
TEXT = base64.b64encode(FILES[3]).decode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.just(TEXT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
TENSOR = ("parameters", "name", "shape", "datatype", "data")
KEYS = ("text", "image", "instances", "inputs", "outputs", "top_k", "id", *TENSOR)
TYPES = ["application/json", "application/json; charset=utf-8", "image/png", "application/octet-stream", "text/plain",
         "multipart/form-data; boundary=B", "text/html", "", ";", "a/b; c=\""]  # fmt: skip
FORM = b"--B\r\nContent-Disposition: form-data; name=a; filename=b\r\nContent-Type: %s\r\n\r\n%s\r\n--B--\r\n"
SOUND: list[tuple[bytes, str]] = [
    *((file, "image/png") for file in FILES),
    (b"my parcel is late", "text/plain"),
    (FORM % (b"image/png", FILES[3]), "multipart/form-data; boundary=B"),
    (FORM % (b"text/plain", b"late"), "multipart/form-data; boundary=B"),
    *(
        (json.dumps(value).encode(), "application/json")
        for value in (
            {"image": TEXT}, {"text": "late"}, {"text": ["late", "parcel"], "top_k": 2},
            {"instances": [{"text": "late"}, {"text": "parcel"}]}, {"instances": [{"image": TEXT}, {"image": TEXT}]},
            {"id": "7", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["late", "parcel"]}]},
            {"inputs": [{"name": "text", "shape": [1, 2], "datatype": "BYTES", "data": ["late", "parcel"]}],
             "outputs": [{"name": "label"}]},
        )
    ),
]  # fmt: skip
CHANGE = st.tuples(st.sampled_from(["set", "cut", "drop", "add"]), st.integers(0), st.binary(min_size=1, max_size=4))


def mutated(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Sets, drops or adds a few bytes, or cuts the rest off."""
    for kind, place, new in changes:
        at = place % (len(content) + 1)
        match kind:
            case "set":
                content = content[:at] + new + content[at + len(new) :]
            case "cut":
                content = content[:at]
            case "drop":
                content = content[:at] + content[at + len(new) :]
            case _:
                content = content[:at] + new + content[at:]
    return content


Kind = Literal["image", "text", "pair"]
Send = Callable[[Kind, bytes, str], Reply]


@pytest.fixture
def send(image_predictor: Predictor, text_predictor: Predictor) -> Send:
    """Sends a body to a model of this kind."""
    predictors = {"image": image_predictor, "text": text_predictor, "pair": text_predictor}
    accepts = {"image": Accepts("image"), "text": Accepts("text"), "pair": Accepts("text", pair=True)}
    responders = {kind: Responder(predictor, "m", "1.0") for kind, predictor in predictors.items()}

    def sent(kind: Kind, body: bytes, type: str) -> Reply:
        try:
            request = parse_request(body, type, accepts[kind])
        except RequestError as error:
            [reply] = responders[kind].answer([error])
        else:
            [reply] = responders[kind].answer([request])
        return reply

    return sent


def check(reply: Reply) -> None:
    body = json.loads(reply.body.decode("utf-8"))
    if reply.status == 200:
        assert body.keys() & {"label", "predictions", "outputs"}
    else:
        assert reply.status in (400, 415)
        assert list(body) == ["error"]
        assert 0 < len(body["error"]) < 500


KINDS = st.sampled_from(["image", "text", "pair"])


@same_predictor
@given(kind=KINDS, body=st.binary(max_size=200), type=st.sampled_from(TYPES) | st.text(max_size=30))
def test_any_bytes_of_any_type(send: Send, kind: Kind, body: bytes, type: str) -> None:
    check(send(kind, body, type))


@same_predictor
@given(kind=KINDS, value=VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_json(send: Send, kind: Kind, value: object) -> None:
    check(send(kind, json.dumps(value).encode(), "application/json"))


@same_predictor
@given(value=VALUES, key=st.sampled_from(TENSOR), pair=st.booleans())
def test_any_value_in_a_tensor(value: object, key: str, pair: bool) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["late"], key: value}

    try:
        request = json_request({"inputs": [tensor]}, Accepts("text", pair))
    except RequestError:
        return
    assert len(request.items) > 0


@same_predictor
@given(kind=KINDS, sound=st.sampled_from(SOUND), changes=st.lists(CHANGE, max_size=3))
def test_requests_that_were_sound(
    send: Send, kind: Kind, sound: tuple[bytes, str], changes: list[tuple[str, int, bytes]]
) -> None:
    body, type = sound
    check(send(kind, mutated(body, changes), type))


def test_the_sound_requests_are_sound(send: Send) -> None:
    statuses = {(kind, send(kind, body, type).status) for body, type in SOUND for kind in ("image", "text", "pair")}
    assert {kind for kind, status in statuses if status == 200} == {"image", "text", "pair"}
    for body, type in SOUND:
        assert 200 in {send(kind, body, type).status for kind in ("image", "text", "pair")}, body


@given(file=st.sampled_from(FILES), changes=st.lists(CHANGE, min_size=1, max_size=6), front=st.booleans())
def test_images_that_were_sound(file: bytes, changes: list[tuple[str, int, bytes]], front: bool) -> None:
    if front:  # the headers are where decoders trip
        changes = [(kind, place % 64, new) for kind, place, new in changes]
    with suppress(ItemError):
        assert ImagePreprocessor(8, 8).encode(mutated(file, changes)).shape == (8, 8, 3)
