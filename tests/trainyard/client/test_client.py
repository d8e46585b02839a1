"""Both clients against a server that answers, fails, hangs up and dawdles as it is told to."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from trainyard.base.errors import ItemError, UsageError
from trainyard.client.client import AsyncClient, Client
from trainyard.client.messages import Answer, NotServed, ServedModel, ServerError, Unauthorised, Unreachable
from trainyard.inference.inputs import Reads
from trainyard.inference.predictor import Deployed
from trainyard.preprocess.rows import Dialect

DEPLOYED = Deployed("b" * 64, "one", "onnx")
TOKEN = "s3cret-t0ken"
Answering = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def instances(self) -> list[dict[str, object]]:
        return json.loads(self.body)["instances"]


@dataclass
class Server:
    """``script`` answers the first requests, one each, and ``answer`` all that follow."""

    script: list[Answering] = field(default_factory=list)
    answer: Answering | None = None
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            body = await request.read()
            self.asked.append(Asked(request.method, request.raw_path, dict(request.headers), body))
            answer = self.script.pop(0) if self.script else self.answer or answers
            return await answer(request, body)
        finally:
            self.at_once -= 1


def says(status: int, content: object = None, **headers: str) -> Answering:
    """Answers with JSON, bytes or nothing."""
    body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request, _: bytes) -> web.Response:
        return web.Response(status=status, body=body, headers=named)

    return answer


async def hangs_up(request: web.Request, _: bytes) -> web.Response:
    """Closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def breaks_off(request: web.Request, _: bytes) -> web.StreamResponse:
    """Closes the connection in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"predictions": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def sleeps(request: web.Request, _: bytes) -> web.Response:
    """Gives no answer."""
    await asyncio.sleep(3600)
    return web.Response()


async def trickles(request: web.Request, _: bytes) -> web.StreamResponse:
    """Sends a byte now and then, and comes to no end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def answers(request: web.Request, body: bytes) -> web.Response:
    """Gives each instance its own content as its label; one that begins with "bad" can't be read."""
    _, _, model, *version = request.path.split("/")
    deployed = DEPLOYED._asdict()
    if model == "older":
        deployed["rung"] = deployed.pop("format")
    origin = {"model": model, "version": [*version, "1.0"][0], "deployed": deployed}
    if request.content_type == "application/octet-stream":
        return web.json_response({**row({"image": base64.b64encode(body).decode()}, 3), **origin})
    asked = json.loads(body)
    rows = [row(instance, asked["top_k"]) for instance in asked["instances"]]
    if all("error" in row for row in rows):
        reason = rows[0]["error"] if len(rows) == 1 else "none has an answer"
        return web.json_response({"error": reason}, status=400)
    return web.json_response({"predictions": rows, **origin})


def row(instance: dict[str, str | list[str]], top_k: int) -> dict[str, object]:
    [(kind, value)] = instance.items()
    text = "|".join(value) if isinstance(value, list) else value
    shown = base64.b64decode(text).decode() if kind == "image" else text
    if shown.startswith("bad"):
        return {"error": f"{shown} can't be read"}
    top = [{"label": shown if i == 0 else f"other {i}", "probability": 0.5 / (i + 1)} for i in range(top_k)]
    return {**top[0], "top": top}


@pytest.fixture
def server() -> Iterator[Server]:
    """Runs in a thread of its own, and ends with all that still hangs in it."""
    server, loop, up = Server(), asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=100_000_000)
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        up.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert up.wait(60)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)


Ask = Callable[..., object]


@pytest.fixture(params=["waiting", "async"])
def ask(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a method of either client, as in ``ask("predict", "m", ["a"], retries=1)``; pauses are short."""
    monkeypatch.setattr("trainyard.client.client.FIRST_PAUSE", 0.01)

    def call(method: str, *words: object, top_k: int = 1, version: str | None = None, url: str = "", **options: object):
        named = {"top_k": top_k, "version": version} if method == "predict" else {}

        async def call_async() -> object:
            async with AsyncClient(url or server.url, **options) as client:  # type: ignore[arg-type]
                return await getattr(client, method)(*words, **named)

        if request.param == "async":
            return asyncio.run(call_async())
        with Client(url or server.url, **options) as client:  # type: ignore[arg-type]
            return getattr(client, method)(*words, **named)

    return call


def labels(answers: object) -> list[str]:
    assert isinstance(answers, list)
    return [answer.label if isinstance(answer, Answer) else f"error: {answer}" for answer in answers]


def test_an_answer_says_all_that_there_is(ask: Ask, server: Server) -> None:
    expected = Answer("hello", 0.5, [("hello", 0.5), ("other 1", 0.25)], "m", "1.0", DEPLOYED)
    assert ask("predict", "m", ["hello"], top_k=2) == [expected]
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/predictions/m")
    assert asked.headers["Content-Type"] == "application/json"
    assert "Authorization" not in asked.headers


def test_an_older_server_calls_the_format_otherwise(ask: Ask, server: Server) -> None:
    assert ask("predict", "older", ["hello"]) == [Answer("hello", 0.5, [("hello", 0.5)], "older", "1.0", DEPLOYED)]


def test_every_kind_of_item_is_sent_as_what_it_is(ask: Ask, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(b"file")
    assert labels(ask("predict", "m", [b"bytes", file, "text é", ("a", "b")])) == ["bytes", "file", "text é", "a|b"]
    assert [list(instance) for instance in server.asked[0].instances] == [["image"], ["image"], ["text"], ["text"]]


def test_half_an_emoji_is_replaced_as_the_predictor_does(ask: Ask, server: Server) -> None:
    assert labels(ask("predict", "m", ["half \ud83d", ("a\udfff", "b")])) == ["half \ufffd", "a\ufffd|b"]


def test_a_bad_item_fails_alone(ask: Ask, server: Server, tmp_path: Path) -> None:
    given = labels(ask("predict", "m", ["a", "bad b", tmp_path / "missing", "c"]))
    assert given == [
        "a",
        "error: bad b can't be read",
        f"error: {tmp_path / 'missing'} can't be read (No such file or directory)",
        "c",
    ]
    assert len(server.asked[0].instances) == 3


def test_what_cannot_be_sent_costs_no_request(ask: Ask, server: Server, tmp_path: Path) -> None:
    assert len(labels(ask("predict", "m", [tmp_path, 7]))) == 2
    assert ask("predict", "m", []) == []
    assert server.asked == []


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("status", [400, 413])
def test_a_lone_item_that_is_refused_is_its_own_error(ask: Ask, server: Server, status: int, top_k: int) -> None:
    server.script = [says(status, {"error": "that is no image"})]
    assert labels(ask("predict", "m", [b"x"], top_k=top_k)) == ["error: that is no image"]


@pytest.mark.parametrize("status", [400, 413])
def test_items_that_are_refused_together_are_asked_about_alone(ask: Ask, server: Server, status: int) -> None:
    server.script = [says(status, {"error": "no"}), answers, says(status, {"error": "too large"})]
    assert labels(ask("predict", "m", ["a", 7, "b", "c"]))[::2] == ["a", "error: too large"]
    assert [len(asked.instances) for asked in server.asked] == [3, 1, 1, 1]


def test_one_image_goes_as_it_is(ask: Ask, server: Server, tmp_path: Path) -> None:
    [answer] = ask("predict", "m", [b"image"], top_k=3)
    assert answer == Answer(
        "image", 0.5, [("image", 0.5), ("other 1", 0.25), ("other 2", 0.5 / 3)], "m", "1.0", DEPLOYED
    )
    assert (server.asked[0].body, server.asked[0].headers["Content-Type"]) == (b"image", "application/octet-stream")
    assert labels(ask("predict", "m", [tmp_path, b"image"], top_k=3))[1] == "image"


def test_many_items_are_many_requests_and_answered_in_order(ask: Ask, server: Server) -> None:
    texts = [f"bad {i}" if i % 7 == 0 or 64 <= i < 96 else f"text {i}" for i in range(301)]

    async def answers_late(request: web.Request, body: bytes) -> web.Response:
        await asyncio.sleep(0.02 if b"text 1" in body[:60] else 0)
        return await answers(request, body)

    server.answer = answers_late
    assert labels(ask("predict", "m", iter(texts))) == [
        f"error: {t} can't be read" if t[0] == "b" else t for t in texts
    ]
    # All of the third are bad, so that they are asked about alone.
    assert sorted(len(asked.instances) for asked in server.asked) == [1] * 32 + [13] + [32] * 9


def test_large_items_are_few_in_a_request(ask: Ask, server: Server) -> None:
    items = [b"x" * 2_000_000, b"y" * 500_000, b"z" * 5_000_000, b"a", b"b"]
    assert [label[0] for label in labels(ask("predict", "m", items))] == ["x", "y", "z", "a", "b"]
    assert sorted(len(asked.instances) for asked in server.asked) == [1, 2, 2]


@pytest.mark.parametrize("status", [429, 502, 503])
def test_what_passes_is_tried_again(ask: Ask, server: Server, status: int) -> None:
    server.script = [says(status)] * 3
    assert labels(ask("predict", "m", ["a"])) == ["a"]
    assert len(server.asked) == 4
    assert len({asked.body for asked in server.asked}) == 1


@pytest.mark.parametrize("fault", [hangs_up, breaks_off])
def test_a_dropped_connection_is_tried_again(ask: Ask, server: Server, fault: Answering) -> None:
    server.script = [fault, fault]
    assert labels(ask("predict", "m", ["a"])) == ["a"]
    assert len(server.asked) == 3


@pytest.mark.parametrize("fault", [sleeps, trickles])
def test_an_attempt_that_takes_too_long_is_tried_again(ask: Ask, server: Server, fault: Answering) -> None:
    server.script = [fault]
    assert labels(ask("predict", "m", ["a"], timeout=0.5, deadline=60)) == ["a"]
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 415, 500, 501, 504, 507])
def test_what_would_be_the_same_again_is_not_tried_again(ask: Ask, server: Server, status: int) -> None:
    server.answer = says(status, {"error": "no"}, Location="/elsewhere")
    with pytest.raises(ServerError) as raised:
        ask("predict", "m", ["a"])
    assert (raised.value.status, raised.value.reason, raised.value.exit_code) == (status, "no", 1)
    assert len(server.asked) == 1


def test_retries_come_to_an_end(ask: Ask, server: Server) -> None:
    server.answer = says(503, {"error": "draining"})
    with pytest.raises(ServerError, match="too busy or isn't ready.*draining") as raised:
        ask("predict", "m", ["a"], retries=2)
    assert raised.value.status == 503
    assert len(server.asked) == 3


def test_a_server_that_asks_for_patience_beyond_the_deadline_gets_none(ask: Ask, server: Server) -> None:
    server.answer = says(503, Retry_After="3600")
    with pytest.raises(ServerError):
        ask("predict", "m", ["a"], deadline=5)
    assert len(server.asked) == 1


def test_the_deadline_ends_a_request_whatever_the_retries(ask: Ask, server: Server) -> None:
    server.answer = sleeps
    with pytest.raises(Unreachable, match="it took more than"):
        ask("predict", "m", ["a"], timeout=60, deadline=0.3, retries=100)


def test_no_server_is_one_sentence(ask: Ask) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"{url} gives no answer .*: check the URL") as raised:
        ask("predict", "m", ["a"], url=url, retries=1)
    assert raised.value.status is None
    assert ask("ready", url=url) is False


@pytest.mark.parametrize(("status", "error"), [(401, Unauthorised), (403, Unauthorised), (404, NotServed)])
def test_an_error_has_a_type(ask: Ask, server: Server, status: int, error: type[ServerError]) -> None:
    server.answer = says(status, {"code": status, "type": "Some", "message": "so it is\nnow"})  # TorchServe's own way
    with pytest.raises(error) as raised:
        ask("predict", "m", ["a"])
    assert raised.value.reason == "so it is now"
    assert ("so it is now" in str(raised.value)) == (status != 401), "of a token all is said by us, once"


TOO_FEW = {"predictions": [], "model": "m", "version": "1", "deployed": DEPLOYED._asdict()}


@pytest.mark.parametrize(
    "content", [b"<html>hello", b"", b"[]", b'{"predictions": []}', b"[" * 10**5, b"\xff", TOO_FEW]
)
def test_an_answer_that_is_none_is_one_sentence(ask: Ask, server: Server, content: object) -> None:
    server.answer = says(200, content)
    with pytest.raises(ServerError, match="what isn't an answer") as raised:
        ask("predict", "m", ["a"])
    assert len(str(raised.value)) < 500


def test_an_error_of_many_requests_ends_them(ask: Ask, server: Server) -> None:
    server.script = [answers, says(401)]
    server.answer = says(401)
    with pytest.raises(Unauthorised):
        ask("predict", "m", ["a"] * 32 * 100)
    assert len(server.asked) <= 10


def test_the_token_is_sent_and_never_logged(
    ask: Ask, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore2").setLevel(logging.DEBUG)
    own = tmp_path / "tokens.json"
    own.write_text(json.dumps({"management": {"key": "other"}, "inference": {"key": TOKEN, "expiration time": "x"}}))
    plain = tmp_path / "token"
    plain.write_text(f"{TOKEN}\n")
    server.script = [answers, hangs_up, answers, says(401, {"error": "wrong token"})]
    ask("predict", "m", ["a"], token=TOKEN)
    ask("predict", "m", ["a"], token_file=own)
    with pytest.raises(Unauthorised) as raised:
        ask("predict", "m", ["a"], token_file=str(plain))
    assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {TOKEN}"}
    assert caplog.records
    assert TOKEN not in caplog.text + capsys.readouterr().err + str(raised.value) + repr(
        Client(server.url, TOKEN).__dict__
    )


def test_names_versions_and_a_server_below_a_path(ask: Ask, server: Server) -> None:
    [answer] = ask("predict", "a/b é?", ["x"], url=f"{server.url}/models//")
    assert server.asked[0].path == "/models/predictions/a%2Fb%20%C3%A9%3F"
    [answer] = ask("predict", "m", ["x"], version="2.0")
    assert (answer.version, server.asked[1].path) == ("2.0", "/predictions/m/2.0")


def test_no_proxy_is_asked_for_this_machine(ask: Ask, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    for host in ("127.0.0.1", "localhost"):
        assert labels(ask("predict", "m", ["x"], url=server.url.replace("127.0.0.1", host))) == ["x"]


def test_top_k_below_one_is_refused(ask: Ask, server: Server) -> None:
    with pytest.raises(UsageError, match="top_k=0"):
        ask("predict", "m", ["x"], top_k=0)
    assert server.asked == []


def test_what_a_model_takes(ask: Ask, server: Server) -> None:
    for name, shape, parameters, reads in (
        ("image", [-1], {}, Reads("image", False, ("image",), Dialect(header=False))),
        (
            "text",
            [-1],
            {"parameters": {"columns": ["title", 3]}},
            Reads("text", False, ("title", 3), Dialect(header=False)),
        ),
        ("text", [-1, 2], {}, Reads("text", True, (0, 1), Dialect(header=False))),
    ):
        told = {"inputs": [{"name": name, "datatype": "BYTES", "shape": shape, **parameters}], "outputs": []}
        server.answer = says(200, {"name": "m", "versions": ["1.0"], "platform": "x", **told})
        assert ask("model", "m") == ServedModel("m", ("1.0",), reads)
    assert server.asked[0].path == "/v2/models/m"


def test_the_names_of_the_models(ask: Ask, server: Server) -> None:
    server.script = [says(503), says(200, {"models": ["a", "b"]})]
    assert ask("models") == ["a", "b"]
    assert server.asked[0].path == "/v2/models"


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False), (502, False)])
def test_readiness_is_asked_once(ask: Ask, server: Server, status: int, ready: bool) -> None:
    server.answer = says(status, {"ready": ready})
    assert ask("ready") is ready
    assert [asked.path for asked in server.asked] == ["/v2/health/ready"]


def test_readiness_that_is_not_told_is_an_error(ask: Ask, server: Server) -> None:
    server.answer = says(401)
    with pytest.raises(Unauthorised):
        ask("ready")


def test_the_async_client_keeps_to_its_number_of_requests_at_once(server: Server) -> None:
    both = threading.Event()

    async def answers_together(request: web.Request, body: bytes) -> web.Response:
        # The first waits until another is there, too.
        while not both.is_set():
            if server.at_once > 1:
                both.set()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        return await answers(request, body)

    async def call() -> list[list[Answer | ItemError]]:
        async with AsyncClient(server.url, concurrency=3) as client:
            return await asyncio.gather(*(client.predict("m", [f"{i}"] * 32 * 5) for i in range(4)))

    server.answer = answers_together
    given = asyncio.run(call())
    assert [labels(one) for one in given] == [[f"{i}"] * 160 for i in range(4)]
    assert len(server.asked) == 20
    assert 2 <= server.most_at_once <= 3


def test_many_threads_may_share_the_waiting_client(server: Server) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda i: client.predict("m", [f"{i}"], 1), range(40)))
    assert [labels(one) for one in given] == [[f"{i}"] for i in range(40)]


def test_the_waiting_client_works_where_a_loop_runs_and_after_a_fork(server: Server) -> None:
    async def notebook() -> list[Answer | ItemError]:
        return Client(server.url).predict("m", ["a"], 1)

    assert labels(asyncio.run(notebook())) == ["a"]
    code = f"""
import os, warnings
from trainyard import Client
warnings.simplefilter("ignore")
client = Client({server.url!r})
client.predict("m", ["parent"], 1)
child = os.fork()
print(client.predict("m", ["child"], 1)[0].label, flush=True)
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "child\nchild\n", "and a client that nobody closed keeps no process"


def test_a_client_that_is_closed_or_forgotten_ends_its_thread_and_who_waits_in_it(server: Server) -> None:
    def threads() -> int:
        return sum(thread.name == "trainyard-client" for thread in threading.enumerate())

    def wait(client: Client) -> None:
        with pytest.raises(CancelledError):
            client.predict("m", ["a"])

    server.script = [sleeps]
    client = Client(server.url)
    waiting = threading.Thread(target=wait, args=(client,))
    waiting.start()
    while not server.asked:
        time.sleep(0.01)
    client.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert threads() == 0
    server.answer = says(200, {"models": []})
    assert client.models() == []
    del client
    gc.collect()
    for _ in range(3000):
        if threads() == 0:
            break
        time.sleep(0.01)
    assert threads() == 0


def test_what_took_the_server_too_long_is_told_so(ask: Ask, server: Server) -> None:
    server.answer = says(504, {"error": "no answer within 30 s"}, Retry_After="1")
    with pytest.raises(ServerError, match=r"took too long .*within 30 s.*: send smaller items, or fewer at once"):
        ask("predict", "m", ["a", "b"])
    assert len(server.asked) == 1
    assert ask("ready") is False


@pytest.mark.parametrize(
    "told",
    [{}, {"inputs": []}, {"inputs": 3}, {"inputs": [{"name": "sound", "shape": [-1]}]},
     {"inputs": [{"name": "text", "shape": 7, "parameters": {"columns": 3}}]}, {"inputs": [{"name": "text"}] * 2}],
)  # fmt: skip
def test_a_model_that_makes_no_sense_is_one_sentence(ask: Ask, server: Server, told: dict[str, object]) -> None:
    server.answer = says(200, {"name": "m", "versions": ["1"], **told})
    with pytest.raises(ServerError, match="what isn't an answer"):
        ask("model", "m")


@pytest.mark.parametrize(
    "row", [{}, 7, {"label": "a"}, {"label": "a", "probability": 1, "top": [{"label": 3}]}, {"label": "a", "top": 3}]
)
def test_a_prediction_that_makes_no_sense_is_one_sentence(ask: Ask, server: Server, row: object) -> None:
    for deployed in (DEPLOYED._asdict(), {}, 7, {"bundle": "b", "format": "none"}):
        server.answer = says(200, {"predictions": [row], "model": "m", "version": "1", "deployed": deployed})
        with pytest.raises(ServerError, match="what isn't an answer"):
            ask("predict", "m", ["a"])
