"""The handler, loaded and called by TorchServe's own code, with rows as they come with our gateway and without it."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from ts.model_loader import TsModelLoader
from ts.service import Service
from ts.utils.util import list_classes_from_module

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import BundleError, UsageError
from trainyard.http.batch import Reply, Sent, read_replies, write_requests
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Encoded

HANDLER = Path(__file__).parents[3] / "serving" / "handler.py"
Answer = tuple[int, dict[str, object]]
Load = Callable[..., Service]


@pytest.fixture
def model(digits_run: Path, tmp_path: Path) -> Path:
    """What TorchServe makes of an archive: a folder with the handler and what is deployed."""
    folder = tmp_path / "model"
    shutil.copytree(digits_run / "bundle", folder / "deployed" / "bundle")
    shutil.copy(HANDLER, folder)
    (folder / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "digits", "modelVersion": "3.0", "handler": "handler.py",
                          "configFile": "model-config.yaml"}}  # fmt: skip
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    config = {"minWorkers": 1, "handler": {"format": "eager", "threads": 1, "device": "cpu", "batch_size": 8}}
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def load(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads the model as a worker does."""
    monkeypatch.syspath_prepend(str(model))
    monkeypatch.delenv("TRAINYARD_EXPECT", raising=False)

    def load_model(is_batched: bool = False) -> Service:
        config = yaml.safe_load((model / "model-config.yaml").read_text())
        config["handler"]["is_batched"] = is_batched
        (model / "model-config.yaml").write_text(yaml.safe_dump(config))
        metrics = Mock(spec=["set_request_ids", "add_time", "request_ids"])
        service = TsModelLoader().load("digits", str(model), "handler.py", None, 4, metrics_cache=metrics)
        service.set_cl_socket(None)
        return service

    yield load_model
    sys.modules.pop("handler", None)


def request(parameters: Mapping[str, tuple[str, object]], **headers: str) -> dict[str, object]:
    """A request as it is read from TorchServe's socket: fields by name, each with its type and value."""
    fields = [{"name": name, "contentType": type, "value": value} for name, (type, value) in parameters.items()]
    lines = [{"name": name.encode(), "value": value.encode()} for name, value in headers.items()]
    return {"requestId": b"an id", "parameters": fields, "headers": lines}


def fronted(*requests: tuple[bytes, str]) -> dict[str, object]:
    """A batch that our gateway made of requests."""
    body = b"".join(write_requests([Sent(type, body) for body, type in requests]))
    return request({"body": ("application/octet-stream", bytearray(body))})


def replied(service: Service, *requests: tuple[bytes, str]) -> list[Reply]:
    """What the gateway gets for its batch."""
    processors, rows, ids = Service.retrieve_data_for_inference([fronted(*requests)])
    service.context.request_processor, service.context.request_ids = processors, ids
    [body] = service._entry_point(rows, service.context)
    return read_replies(body)


def handled(service: Service, *batch: dict[str, object]) -> list[Answer]:
    """Has TorchServe's own code prepare the rows, and the handler answer them."""
    processors, rows, ids = Service.retrieve_data_for_inference(batch)
    service.context.request_processor, service.context.request_ids = processors, ids
    bodies = service._entry_point(rows, service.context)
    assert all(isinstance(body, bytes) for body in bodies)
    assert {service.context.get_response_content_type(i) for i in range(len(batch))} <= {"application/json"}
    return [(service.context.get_response_status(i)[0], json.loads(body)) for i, body in enumerate(bodies)]


@pytest.fixture
def image(digits_run: Path) -> bytes:
    return min((digits_run / "bundle" / "samples" / "golden").iterdir()).read_bytes()


def test_the_file_defines_one_class(load: Load) -> None:
    load()

    assert [found.__name__ for found in list_classes_from_module(sys.modules["handler"])] == ["Handler"]


def test_each_form_from_the_front_is_answered_as_the_predictor_does(load: Load, digits_run: Path, image: bytes) -> None:
    text = base64.b64encode(image).decode()
    v2 = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}]}
    form = b"--B\r\nContent-Disposition: form-data; name=data\r\n\r\n" + image + b"\r\n--B--\r\n"

    replies = replied(
        load(is_batched=True),
        (image, "image/png"),
        (image, "application/octet-stream"),
        (form, "multipart/form-data; boundary=B"),
        (json.dumps({"image": text}).encode(), "application/json"),
        (json.dumps({"instances": [{"image": text}]}).encode(), "application/json; charset=utf-8"),
        (json.dumps(v2).encode(), "application/json"),
    )

    [scores] = Predictor(digits_run, "eager").probabilities([image])
    label = Bundle.open(digits_run).labels[int(scores.argmax())]
    assert [reply.status for reply in replies] == [200] * 6
    bodies = [json.loads(reply.body) for reply in replies]
    for one in bodies[:4]:
        assert (one["label"], one["model"], one["version"]) == (label, "digits", "3.0")
        assert one["probability"] == pytest.approx(scores.max(), abs=1e-6)
        assert one["deployed"] == {"bundle": Bundle.open(digits_run).digest, "export": None, "format": "eager"}
    assert bodies[4]["predictions"][0]["label"] == label
    np.testing.assert_allclose(bodies[5]["outputs"][1]["data"], scores, atol=1e-6)


def test_one_bad_request_of_eight_is_the_only_one_that_fails(
    load: Load, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = load(is_batched=True)
    sizes = []
    forward = Predictor._forward

    def count(self: Predictor, encoded: list[Encoded]) -> object:
        sizes.append(len(encoded))
        return forward(self, encoded)

    monkeypatch.setattr(Predictor, "_forward", count)

    replies = replied(service, *[(b"no image" if i == 3 else image, "image/png") for i in range(8)])

    assert [reply.status for reply in replies] == [200, 200, 200, 400, 200, 200, 200, 200]
    assert b"the image can't be decoded" in replies[3].body
    assert sizes == [7], "all went through the model in one call"
    assert [reply.status for reply in replied(service, (b"", "image/png"), (image, "text/html"))] == [400, 415]
    assert sizes == [7], "nothing is asked of the model"


def test_rows_of_a_torchserve_without_our_front_are_read_too(load: Load, image: bytes) -> None:
    text = base64.b64encode(image).decode()
    expected = json.loads(replied(load(is_batched=True), (image, "image/png"))[0].body)
    service = load()

    one = [
        request({"body": ("image/png", bytearray(image))}),
        request({"body": ("", bytearray(image))}),  # curl -T
        request({"data": ("image/png", bytearray(image))}),  # curl -F data=@
        request({"body": ("application/json", {"image": text})}),
    ]
    for status, body in handled(service, *one):
        assert status == 200
        assert body["label"] == expected["label"]
        assert set(body) == set(expected)
    [(status, body)] = handled(service, request({"a": ("image/png", bytearray(image)), "b": ("text/plain", "late")}))
    assert status == 200
    assert [set(row) for row in body["predictions"]] == [{"label", "probability", "top"}, {"error"}]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("parameters", "status", "reason"),
    [
        ({}, 400, "the body is empty"),
        ({"body": ("image/png", bytearray())}, 400, "the body is empty"),
        ({"body": ("application/json", bytearray(b"{bad"))}, 400, "isn't valid JSON"),
        ({"body": ("application/json", [1, 2])}, 400, "none of"),
        ({"body": ("application/json", None)}, 400, "none of"),
        ({"body": ("application/json", {"image": 1, "instances": []})}, 400, "none of"),
        ({"body": ("text/plain", "late")}, 415, "text/plain"),
        ({"body": ("text/html", "\ud83d")}, 415, "text/html"),
        ({"a": ("application/json", {}), "b": ("", bytearray())}, 200, ""),
    ],
)
def test_bad_rows_are_refused(load: Load, parameters: dict[str, tuple[str, object]], status: int, reason: str) -> None:
    [(code, body)] = handled(load(), request(parameters))

    assert code == status
    assert reason in str(body.get("error", ""))


def test_the_digest_is_compared_when_the_model_loads(
    load: Load, digits_run: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Bundle.open(digits_run).digest
    for words in (digest, f"{'0' * 64}, {digest}", f"{'0' * 64} {digest}", ""):
        monkeypatch.setenv("TRAINYARD_EXPECT", words)
        load()
    monkeypatch.setenv("TRAINYARD_EXPECT", "0" * 64)
    with pytest.raises(BundleError):
        load()
    monkeypatch.setenv("TRAINYARD_EXPECT", "nonsense")
    with pytest.raises(UsageError):
        load()
    monkeypatch.delenv("TRAINYARD_EXPECT")
    next((model / "deployed" / "bundle" / "samples" / "golden").iterdir()).write_bytes(b"changed")
    with pytest.raises(BundleError):
        load()


def test_it_tells_the_gateway_of_each_request_what_the_model_did(load: Load, image: bytes, digits_run: Path) -> None:
    replies = replied(load(is_batched=True), (b"no image", "image/png"), (image, "image/png"), (b"", "text/html"))

    bad, good, refused = [reply.facts for reply in replies]

    assert bad is not None
    assert good is not None
    assert (bad.items, bad.batch, bad.labels) == (1, 2, [])
    [scores] = Predictor(digits_run, "eager").probabilities([image])
    assert (good.items, good.batch, good.labels) == (1, None, [int(scores.argmax())])
    assert good.confidences == pytest.approx([scores.max()], abs=1e-3)
    assert good.measures == {"brightness": [pytest.approx(0.3, abs=0.2)]}
    assert good.model_ms > 0
    assert good.preprocess_ms > 0
    assert refused is None


def test_torchserve_takes_the_answers(load: Load, image: bytes) -> None:
    """Its own code frames them: statuses, headers and bodies of the whole batch."""
    framed = bytes(load().predict([request({"body": ("image/png", bytearray(body))}) for body in (image, b"")]))

    assert framed.startswith(b"\x00\x00\x00\xc8")
    assert framed.count(b"application/json") == 4, "each as the body's type and as a header"
    assert b"Bad Request" in framed
    assert b'{"error":"the body is empty"}' in framed
    assert b'"model":"digits"' in framed


def test_torchserve_takes_binary_tensors_and_their_header(load: Load, image: bytes) -> None:
    tensors = len(image).to_bytes(4, "little") + image
    given = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensors)}}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    type = f"application/json; inference-header-content-length={len(head)}"

    framed = bytes(load(is_batched=True).predict([fronted((head + tensors, type))]))
    [reply] = replied(load(is_batched=True), (head + tensors, type))

    assert framed.startswith(b"\x00\x00\x00\xc8")
    assert reply.body in framed
    assert (reply.status, reply.content_type) == (200, "application/octet-stream")
    assert 0 < int(reply.headers["Inference-Header-Content-Length"]) < len(reply.body)


def test_a_gpu_is_the_one_that_torchserve_gave(load: Load) -> None:
    load()
    device = sys.modules["handler"]._device

    assert [device("cpu", None), device("cpu", 1), device("cuda", None), device("cuda", 1)] == [
        "cpu", "cpu", "cuda", "cuda:1",
    ]  # fmt: skip
