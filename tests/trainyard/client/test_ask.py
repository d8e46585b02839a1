"""``trainyard predict --url`` against a server that speaks as ours does: what is read, sent, shown, and how it ends."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from trainyard import cli

pytestmark = pytest.mark.usefixtures("restored")

TOKEN = "s3cret-t0ken"
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "lightning", "onnxruntime", "datasets", "pyarrow")))
from trainyard.cli import main
main()
"""
MODELS = {
    "photos": {"name": "image", "shape": [-1]},
    "tickets": {"name": "text", "shape": [-1], "parameters": {"columns": ["title", "body"]}},
    "pairs": {"name": "text", "shape": [-1, 2], "parameters": {"columns": ["a", "b"]}},
}
DEPLOYED = {"bundle": "b" * 64, "export": "one", "format": "onnx"}


class Handler(BaseHTTPRequestHandler):
    """Knows ``models``; the label of an item is what it was sent as, and what begins with "bad" is an error."""

    models: dict[str, dict[str, object]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name == "models":
            self.say(200, {"models": list(self.models)})
        elif name in self.models:
            self.say(200, {"name": name, "versions": ["1.0"], "inputs": [self.models[name]]})
        else:
            self.say(404, {"error": f"there is no model {name}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.say(401, {"error": "the token is wrong"})
        origin = {"model": "m", "version": "1.0", "deployed": DEPLOYED}
        if self.headers["Content-Type"] == "application/octet-stream":
            return self.say(200, {**row("raw"), **origin})
        items = [next(iter(instance.values())) for instance in json.loads(body)["instances"]]
        return self.say(200, {"predictions": [row(str(item)) for item in items], **origin})

    def say(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def row(label: str) -> dict[str, object]:
    if label.startswith("bad"):
        return {"error": "can't be read"}
    return {"label": label, "probability": 0.75, "top": [{"label": label, "probability": 0.75}]}


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server of these models; gives its URL."""
    servers = []

    def start(*names: str) -> str:
        handler = type("Some", (Handler,), {"models": {name: MODELS[name] for name in names}})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"inference": {"key": TOKEN}}))
    return file


def run(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", "predict", *map(str, words)])
        cli.main()
    return int(end.value.code or 0)


def test_texts_are_answered_as_a_run_would(
    serve: Serve, token: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,title,body\n1,hello,you\n2,,\n")

    assert run("--url", serve("tickets"), "--token-file", token, "some text", "bad text", table, "--json") == 1

    top = {"label": "some text", "probability": 0.75, "top": [{"label": "some text", "probability": 0.75}]}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [{"input": "some text", **top}, {"input": "bad text", "error": "can't be read"}]
    assert [line.get("label", line.get("error")) for line in lines[2:]] == [
        "hello you", "the row has nothing in column 'title' and column 'body'",
    ]  # fmt: skip


def test_images_are_answered_into_a_table_and_a_file(
    serve: Serve, token: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url, image, out = serve("photos"), tmp_path / "a.png", tmp_path / "out.csv"
    image.write_bytes(b"image")

    assert run("--url", url, "--token-file", token, image) == 0
    assert "raw" in capsys.readouterr().out
    assert run("--url", url, "--token-file", token, tmp_path, "--out", out, "--top-k", 1) == 0
    with out.open() as file:
        assert [(row["input"], row["label"]) for row in csv.DictReader(file)] == [(str(image), "aW1hZ2U=")]


def test_pairs_come_from_a_table(serve: Serve, token: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("b,a\n2,1\n")

    assert run("--url", serve("pairs"), "--token-file", token, table, "--json") == 0
    assert json.loads(capsys.readouterr().out)["label"] == "['1', '2']"
    assert run("--url", serve("pairs"), "--token-file", token, "a text") == 2


def test_one_of_several_models_is_chosen(serve: Serve, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = serve("photos", "tickets")

    assert run("--url", url, "--token-file", token, "a text") == 2
    assert "has the models photos, tickets: choose one by --model" in capsys.readouterr().err
    assert run("--url", url, "--token-file", token, "--model", "tickets", "a text") == 0
    assert run("--url", url, "--token-file", token, "--model", "none", "a text") == 1
    assert "there is no model none" in capsys.readouterr().err


def test_a_wrong_token_is_one_sentence_and_1(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", serve("tickets"), "a text") == 1
    said = capsys.readouterr().err
    assert said.count("token file") == 1
    assert said.count("\n") == 1


def test_options_of_a_run_and_of_a_server_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--format", "onnx"], ["--threads", 1], ["--expect", "f" * 64]):
        assert run("--url", "http://localhost", "x", *words) == 2
        assert f"{words[0]} is the server's own matter" in capsys.readouterr().err
    for words in (["--model", "m"], ["--token-file", "f"]):
        assert run("runs/some", "x", *words) == 2
        assert f"{words[0]} is for a server" in capsys.readouterr().err
    assert run() == 2
    assert "give a RUN to predict with, or --url URL" in capsys.readouterr().err


def test_a_digest_of_the_surroundings_is_for_runs(
    serve: Serve, token: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_EXPECT", "f" * 64)
    assert run("--url", serve("tickets"), "--token-file", token, "x") == 0


def test_it_needs_no_torch(serve: Serve, token: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", "--url", serve("tickets"), "--token-file", token]
    done = subprocess.run([*command, "--json"], input="from stdin\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "from stdin"
