"""Answers to requests: their forms, what is whose fault, and that nothing is lost of a probability."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from trainyard.artifacts.bundle import Certainty, Covered
from trainyard.base.errors import ItemError
from trainyard.heads.base import Prediction
from trainyard.http.request_types import Request, RequestError
from trainyard.http.responses import Responder
from trainyard.inference.predictor import Predictor


class Model(Protocol):
    calls: list[int]
    broken: set[int]


def image(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def responder(text_predictor: Predictor) -> Responder:
    return Responder(text_predictor, "tickets", "2.0")


def answers(responder: Responder, *requests: Request | RequestError) -> list[tuple[int, dict[str, object]]]:
    return [(reply.status, json.loads(reply.body)) for reply in responder.answer(requests)]


def answer(responder: Responder, items: Sequence[object], form: str = "one", **options: object) -> dict[str, object]:
    [(status, body)] = answers(responder, Request(tuple(items), form, **options))  # type: ignore[arg-type]
    assert status == 200
    return body


def test_one_item_is_answered_by_an_object(responder: Responder, text_predictor: Predictor) -> None:
    body = answer(responder, ["late"], top_k=2)

    [expected] = text_predictor.predict(["late"], 2)
    top = [{"label": label, "probability": probability} for label, probability in expected.top]  # type: ignore[union-attr]
    assert body == {
        "label": top[0]["label"], "probability": top[0]["probability"], "top": top, "model": "tickets",
        "version": "2.0",
        "deployed": {"bundle": text_predictor.bundle.digest, "export": None, "format": "eager"},
    }  # fmt: skip


def test_several_are_answered_in_a_list_and_a_bad_one_by_its_error(responder: Responder) -> None:
    body = answer(responder, ["late", " ", ItemError("not a text"), "parcel"], "several", top_k=1)

    predictions = body["predictions"]
    assert isinstance(predictions, list)
    assert predictions[1:3] == [{"error": "the text is empty"}, {"error": "not a text"}]
    for row, text in zip(predictions[::3], ("late", "parcel"), strict=True):
        alone = answer(responder, [text], top_k=1)
        assert row == {key: alone[key] for key in ("label", "probability", "top")}
    assert set(body) == {"predictions", "model", "version", "deployed"}


def test_uncertain_answers_are_marked_in_every_form_and_left_alone_without_a_bound(
    responder: Responder, text_predictor: Predictor
) -> None:
    texts = ["late", " ", "parcel"]
    plain = answer(responder, texts, "v2")
    assert "uncertain" not in plain["parameters"]  # type: ignore[operator]
    first, _, third = text_predictor.predict(texts)
    assert isinstance(first, Prediction)
    assert isinstance(third, Prediction)
    assert first.probability != third.probability
    covered = Covered(coverage=0.5, accuracy=1.0)
    bound = Certainty(
        target_accuracy=0.9, threshold=max(first.probability, third.probability), val=covered, test=covered
    )
    text_predictor.bundle.facts.certainty = bound

    body, v2 = answer(responder, texts, "several"), answer(responder, texts, "v2")

    expected = [one.probability < (bound.threshold or 0) for one in (first, third)]
    rows = body["predictions"]
    assert [row["uncertain"] for row in rows if "error" not in row] == expected  # type: ignore[attr-defined]
    assert v2["parameters"]["uncertain"] == [[0, 2][expected.index(True)]]  # type: ignore[index]
    assert v2["outputs"] == plain["outputs"]
    assert answer(responder, texts[:1])["uncertain"] is expected[0]
    text_predictor.bundle.facts.certainty = bound.model_copy(update={"threshold": None})
    assert answer(responder, texts, "v2")["parameters"]["uncertain"] == [0, 2]  # type: ignore[index]


def test_no_probability_loses_a_digit(image_predictor: Predictor) -> None:
    responder = Responder(image_predictor, "digits", "1.0")
    items = [image(value) for value in range(0, 250, 5)]
    expected = image_predictor.probabilities(items)

    v2 = answer(responder, items, "v2")
    plain = answer(responder, items, "several", top_k=99)

    [label, probabilities] = v2["outputs"]  # type: ignore[misc]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [50],
                     "data": [image_predictor.bundle.labels[i] for i in expected.argmax(axis=1)]}  # fmt: skip
    assert probabilities["shape"] == [50, 10]
    np.testing.assert_array_equal(np.float32(probabilities["data"]).reshape(50, 10), expected)
    for row, told in zip(expected, plain["predictions"], strict=True):  # type: ignore[call-overload]
        top = {one["label"]: np.float32(one["probability"]) for one in told["top"]}
        assert [top[name] for name in image_predictor.bundle.labels] == row.tolist()


def test_the_open_inference_protocol_tells_errors_by_position(responder: Responder, text_predictor: Predictor) -> None:
    body = answer(responder, ["late", "", "parcel"], "v2", id="seven", outputs={"probabilities": False})

    [tensor] = body["outputs"]  # type: ignore[misc]
    assert tensor["name"] == "probabilities"
    assert tensor["data"][10:20] == [0] * 10
    assert {key: body[key] for key in ("id", "model_name", "model_version")} == {
        "id": "seven", "model_name": "tickets", "model_version": "2.0",
    }  # fmt: skip
    assert body["parameters"] == {"labels": text_predictor.bundle.labels, "bundle": text_predictor.bundle.digest,
                                  "export": None, "format": "eager",
                                  "errors": {"1": "the text is empty"}}  # fmt: skip
    assert answer(responder, ["", "late"], "v2")["outputs"][0]["data"][0] == ""  # type: ignore[index]
    unnamed = answer(responder, ["late"], "v2")
    assert "id" not in unnamed
    assert "errors" not in unnamed["parameters"]  # type: ignore[operator]


def test_binary_tensors_stand_behind_the_json_in_its_order(
    responder: Responder, text_predictor: Predictor, sum_model: Model
) -> None:
    wanted = [(False, False), (True, True), (False, True)]
    [plain, both, one] = responder.answer(
        [Request(("late", "", "parcel"), "v2", outputs={"probabilities": a, "label": b}) for a, b in wanted]
    )

    assert (plain.content_type, plain.headers) == ("application/json", {})
    [probabilities, label] = json.loads(plain.body)["outputs"]
    labels = b"".join(struct.pack("<I", len(name)) + name.encode() for name in label["data"])
    for reply, tail in ((both, np.asarray(probabilities["data"], "<f4").tobytes() + labels), (one, labels)):
        length = int(reply.headers["Inference-Header-Content-Length"])
        assert (reply.content_type, reply.body[length:]) == ("application/octet-stream", tail)
        outputs = json.loads(reply.body[:length])["outputs"]
        assert outputs[1] == {"name": "label", "datatype": "BYTES", "shape": [3],
                              "parameters": {"binary_data_size": len(labels)}}  # fmt: skip
    assert outputs[0] == probabilities, "what isn't wanted in binary stays in the JSON"


@pytest.mark.parametrize("form", ["one", "several", "v2"])
def test_a_request_of_one_bad_item_is_bad(responder: Responder, form: str) -> None:
    request = Request(("",), form)  # type: ignore[arg-type]

    assert answers(responder, request) == [(400, {"error": "the text is empty"})]


@pytest.mark.parametrize("form", ["several", "v2"])
def test_a_request_of_several_bad_items_tells_of_each(responder: Responder, form: str) -> None:
    body = answer(responder, ["", ItemError("none")], form)

    if form == "v2":
        assert body["parameters"]["errors"] == {"0": "the text is empty", "1": "none"}  # type: ignore[index]
    else:
        assert body["predictions"] == [{"error": "the text is empty"}, {"error": "none"}]


@pytest.mark.parametrize("form", ["one", "several", "v2"])
def test_that_a_model_has_no_finite_output_is_the_servers_fault(
    responder: Responder, sum_model: Model, form: str
) -> None:
    sum_model.broken = {2}

    replies = answers(responder, Request(("late",), form), Request(("parcel", "late"), "several"))  # type: ignore[arg-type]

    assert replies[0] == (500, {"error": "the model's output for this item isn't finite"})
    status, body = replies[1]
    assert status == 200
    assert [set(row) for row in body["predictions"]] == [{"label", "probability", "top"}, {"error"}]  # type: ignore[attr-defined]
    [(status, _)] = answers(responder, Request(("late", "", "late"), "several"))
    assert status == 500


def test_all_requests_go_through_the_model_together(responder: Responder, sum_model: Model) -> None:
    replies = answers(
        responder,
        Request(("late",), "one"),
        RequestError("the body is empty"),
        Request(("parcel", "", "late"), "several"),
        Request((ItemError("none"),), "one"),
        RequestError("no type", 415),
        Request(("parcel",), "v2"),
    )

    assert sum_model.calls == [4]
    assert [status for status, _ in replies] == [200, 400, 200, 400, 415, 200]
    assert replies[1][1] == {"error": "the body is empty"}
    assert replies[0][1]["label"] == replies[2][1]["predictions"][2]["label"]  # type: ignore[index]
    assert responder.answer([]) == []


def test_a_model_that_the_body_names_is_that_of_the_path(responder: Responder, sum_model: Model) -> None:
    assert answer(responder, ["late"], "v2", model="tickets")["model_name"] == "tickets"
    said = "model_name is 'digits' in a request to the model tickets"
    assert answers(responder, Request(("late",), "v2", model="digits")) == [(400, {"error": said})]
    assert sum_model.calls == [1], "what is meant for another model is not computed"


def empty_webp(width: int, height: int) -> bytes:
    """34 bytes that decode to as many pixels as their header tells of."""
    header = b"\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    frame = b"\x30\x00\x00" + header + bytes(6)
    return b"RIFF" + (len(frame) + 12).to_bytes(4, "little") + b"WEBPVP8 " + len(frame).to_bytes(4, "little") + frame


def test_what_would_hold_up_everybody_is_refused_with_its_sum_before_it_is_decoded(
    image_predictor: Predictor, text_predictor: Predictor, sum_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()  # one of its plug-ins loads an image
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("nothing is decoded"))
    images = Request((empty_webp(7000, 7000), ItemError("none"), b"none") * 42, "several")
    texts = Request(("x" * 100_000,) * 11, "v2")

    [(status, body)] = answers(Responder(image_predictor, "digits", "1.0"), images)
    assert (status, "have 2,058,000,000 pixels together" in str(body["error"])) == (413, True)
    [(status, body)] = answers(Responder(text_predictor, "tickets", "1.0"), texts)
    assert (status, "have 1,100,000 characters together" in str(body["error"])) == (413, True)
    assert sum_model.calls == []


def test_the_budget_is_for_a_request_and_not_for_what_comes_beside_it(responder: Responder, sum_model: Model) -> None:
    half = Request(("late " * 20_000,) * 10, "several")
    assert [status for status, _ in answers(responder, half, Request(("late",) * 2, "several"), half)] == [200] * 3
    assert sum(sum_model.calls) == 22
