"""The probe: it asks for a deep check, and takes nothing but a clear yes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from trainyard import cli
from trainyard.base.errors import UsageError
from trainyard.client.ready import NotReadyError, check_ready
from trainyard.preprocess.base import Item
from trainyard.torchserve.golden import Golden, request_of

SECONDS = 60.0


class Answers(BaseHTTPRequestHandler):
    status, body = 200, b""
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    Answers.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_yes(url: str) -> None:
    Answers.status, Answers.body = 200, b'{"ready": true}'
    check_ready(url + "/", SECONDS)
    assert Answers.asked == ["/v2/health/ready?deep=1"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, b'{"ready": false}'), (200, b'{"ready": false}'), (200, b'{"status": "Healthy"}'), (200, b"true"),
     (200, b"<html>"), (404, b"{}"), (200, b"")],
)  # fmt: skip
def test_anything_else_is_a_no(status: int, body: bytes, url: str) -> None:
    Answers.status, Answers.body = status, body
    with pytest.raises(NotReadyError, match=url) as caught:
        check_ready(url, SECONDS)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(NotReadyError, match="can't be reached"):
        check_ready("http://127.0.0.1:9", SECONDS)


def test_a_url_that_is_none() -> None:
    with pytest.raises(UsageError):
        check_ready("localhost:8080", SECONDS)


@pytest.mark.parametrize(("words", "code"), [(["http://127.0.0.1:9"], 1), (["nonsense"], 2)])
def test_the_verbs_exit_code(words: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trainyard", "ready", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code


# Golden requests


@pytest.mark.parametrize(
    ("item", "name", "shape", "data"),
    [(b"\x00\xff", "image", [1], ["AP8="]), ("hé", "text", [1], ["hé"]), (("a", "b"), "text", [1, 2], ["a", "b"])],
)
def test_requests(item: Item, name: str, shape: list[int], data: list[str]) -> None:
    [given] = json.loads(request_of(item))["inputs"]
    assert given == {"name": name, "shape": shape, "datatype": "BYTES", "data": data}


def answer(*probabilities: float, label: str | None = None) -> bytes:
    best = "abc"[probabilities.index(max(probabilities))]
    outputs = [{"name": "label", "data": [label or best]}, {"name": "probabilities", "data": probabilities}]
    return json.dumps({"outputs": outputs}).encode()


@pytest.mark.parametrize(
    ("max_abs_diff", "given", "right"),
    [
        (0.0, (0.7, 0.2, 0.1), True),
        (0.0, (0.7005, 0.1995, 0.1), True),
        (0.0, (0.71, 0.19, 0.1), False),
        (0.0, (0.2, 0.7, 0.1), False),
        (0.0, (0.7, 0.3), False),
        (0.0, (float("nan"), 0.2, 0.1), False),
        (0.1, (0.76, 0.15, 0.09), True),
        (0.1, (0.2, 0.7, 0.1), False),
        (0.1, (0.4, 0.4, 0.2), False),
    ],
)
def test_what_is_right_follows_from_what_was_measured(
    max_abs_diff: float, given: tuple[float, ...], right: bool
) -> None:
    golden = Golden("a", ("a", "b", "c"), (0.7, 0.2, 0.1), max_abs_diff)
    assert (golden.complaint(answer(*given)) is None) == right


def test_the_label_is_that_of_the_most_probable_class() -> None:
    golden = Golden("a", ("a", "b"), (0.7, 0.3), 0.0)
    assert golden.complaint(answer(0.7, 0.3)) is None
    assert golden.complaint(answer(0.7, 0.3, label="b")) == "the label is b, where a is the most probable"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"error": "x"}', b'{"outputs": 3}', b"[]"])
def test_an_answer_that_is_none(body: bytes) -> None:
    complaint = Golden("a", ("a",), (1.0,), 0.0).complaint(body)
    assert complaint is not None
    assert "can't be read" in complaint
