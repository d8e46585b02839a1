"""The gateway before a made-up TorchServe: tokens, limits, health, what is passed on, and how it drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from trainyard.base.errors import UsageError
from trainyard.gateway.access_log import LEFT, Entry
from trainyard.gateway.batches import Workers
from trainyard.gateway.bodies import Limits
from trainyard.gateway.connections import Connection, Connections
from trainyard.gateway.cors import check_origins
from trainyard.gateway.gateway import Gateway
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.metrics import Metrics, Watched
from trainyard.gateway.proxy import Proxy
from trainyard.gateway.tokens import Tokens
from trainyard.http.batch import Facts, Reply, read_requests, write_replies
from trainyard.http.request_types import HEADER_LENGTH
from trainyard.torchserve.ports import listen, url_of

TOKEN = "s3cret-token"
INNER = "inner-key"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PNG = {**BEARER, "Content-Type": "image/png"}
LIMITS = Limits(body=100_000, held=400_000, body_seconds=20.0, requests=64)
GENEROUS = 60.0
WORKERS = Workers(count=32, batch_size=1)
TYPE = "the client's type"


@dataclass
class Fake:
    """A TorchServe that notes each request that it gets, in whatever batch, and answers by its ``reply``.

    That gives what a worker says to a request, or what TorchServe says in its place to all of a batch.
    """

    url: str = ""
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    reply: Callable[[bytes], Awaitable[Reply | web.Response]] | None = None
    connections: set[object] = field(default_factory=set)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        requests = read_requests(await request.read())
        self.connections.add(request.transport)
        self.batches.append(len(requests))
        self.seen += [(request.path_qs, {**request.headers, TYPE: type}, body) for type, body in requests]
        replies = await asyncio.gather(*(self._reply(body) for _, body in requests))
        answers = [reply for reply in replies if isinstance(reply, Reply)]
        instead = [reply for reply in replies if isinstance(reply, web.Response)]
        return instead[0] if instead else web.Response(body=write_replies(answers))

    async def _reply(self, body: bytes) -> Reply | web.Response:
        return await self.reply(body) if self.reply else said({"label": "a"})


def said(content: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content).encode())


@dataclass
class Standing:
    gateway: Gateway
    fake: Fake
    url: str
    session: aiohttp.ClientSession
    token_file: Path
    metrics: Metrics

    async def post(self, path: str = "/predictions/m", **kwargs: Any) -> tuple[int, dict[str, Any]]:
        kwargs = {"data": b"image", "headers": PNG, **kwargs}
        async with self.session.post(self.url + path, **kwargs) as response:
            return response.status, await response.json(content_type="application/json")

    async def get(self, path: str, **headers: str) -> int:
        async with self.session.get(self.url + path, headers=headers) as response:
            assert isinstance(await response.json(content_type="application/json"), dict)
            return response.status


@asynccontextmanager
async def standing(
    folder: Path,
    limits: Limits = LIMITS,
    seconds: float = GENEROUS,
    workers: Workers = WORKERS,
    origins: Sequence[str] = (),
) -> AsyncIterator[Standing]:
    fake = Fake()
    inner = web.Server(fake.handle)
    server = await asyncio.get_running_loop().create_server(inner, "127.0.0.1", 0)
    fake.url = url_of(server.sockets[0])
    for name, token in (("token", TOKEN), ("inner", INNER)):
        (folder / name).write_text(json.dumps({"inference": {"key": token}}))
        (folder / name).chmod(0o600)
    health = Health(frozenset({"m"}))
    proxy = Proxy(lambda: fake.url, Tokens(folder / "inner"), seconds, {"m": workers})
    metrics = Metrics([Watched("m", "1.0", ("a", "b"), None, {"format": "onnx"})], health)
    about: dict[str, Mapping[str, object]] = {"m": {"name": "m", "versions": ["1.0", "2"]}}
    gateway = Gateway(about, Tokens(folder / "token"), proxy, health, limits, metrics, {"m": workers}, origins)
    listener = listen("127.0.0.1", 0)
    url = url_of(listener)
    await gateway.open(listener)
    health.phase, health.missing = Phase.SERVING, frozenset()
    try:
        async with aiohttp.ClientSession() as session:
            yield Standing(gateway, fake, url, session, folder / "token", metrics)
    finally:
        await gateway.close()
        server.close()
        await inner.shutdown(0.01)


def run(
    folder: Path,
    test: Callable[[Standing], Coroutine[Any, Any, None]],
    limits: Limits = LIMITS,
    seconds: float = 60.0,
    origins: Sequence[str] = (),
    workers: Workers = WORKERS,
) -> None:
    async def main() -> None:
        async with asyncio.timeout(GENEROUS), standing(folder, limits, seconds, workers, origins) as up:
            await test(up)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


@asynccontextmanager
async def connection(up: Standing) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*up.url.removeprefix("http://").split(":"))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def raw(up: Standing, request: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    async with connection(up) as (reader, writer):
        writer.write(request)
        return await reader.read()


# What is passed on


def test_a_body_is_passed_on_as_it_is_with_its_type_in_a_header_of_our_own(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        headers = {**BEARER, "Content-Type": "application/json; charset=utf-8", "X-Trainyard-Content-Type": "a",
                   "X-Trainyard-Z": "x", "Cookie": "c=1", "TE": "trailers", "X-Real-IP": "1.2.3.4"}  # fmt: skip
        assert await up.post(data=b'{"a": 1, "a": 2}', headers=headers) == (200, {"label": "a"})

        [(path, sent, body)] = up.fake.seen
        assert (path, body) == ("/predictions/m", b'{"a": 1, "a": 2}')
        assert sent.pop("Host")
        assert sent == {
            "Authorization": f"Bearer {INNER}",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(b'[[16,"application/json; charset=utf-8"]]') + 1 + 16),
            TYPE: "application/json; charset=utf-8",
        }

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "passed"),
    [
        ("/predictions/m", "/predictions/m"),
        ("/predictions/m/1.0", "/predictions/m"),
        ("/v2/models/m/infer", "/predictions/m"),
        ("/v2/models/m/versions/2/infer", "/predictions/m"),
    ],
)
def test_paths(path: str, passed: str, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        status, _ = await up.post(path, headers={**BEARER, "Content-Type": "application/json"})
        assert (status, up.fake.seen[0][0]) == (200, passed)

    run(tmp_path, test)


@pytest.mark.parametrize(
    "path",
    ["/", "/predictions", "/predictions/other", "/predictions/m/1.0/x", "/predictions/m%2f..%2f", "/models/m",
     "/predictions/../models", "/v2/models/other/infer", "/v2/repository/index", "/api-description", "//predictions/m"],
)  # fmt: skip
def test_other_paths_and_models_arent_there(path: str, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        address = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        answer = await raw(up, f"{address}Content-Type: image/png\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b'{"error": ' in answer
        assert not up.fake.seen

    run(tmp_path, test)


def test_a_query_isnt_taken(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        status, answer = await up.post("/predictions/m?top_k=1")
        assert (status, up.fake.seen) == (400, [])
        assert "top_k" in answer["error"]

    run(tmp_path, test)


def test_methods(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        for method, path in (("GET", "/predictions/m"), ("OPTIONS", "/predictions/m"), ("POST", "/v2/health/live")):
            async with up.session.request(method, up.url + path, headers=BEARER) as response:
                assert (response.status, "error" in await response.json()) == (405, True)
                assert response.headers["Allow"]

    run(tmp_path, test)


def test_connections_to_torchserve_are_kept(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        for _ in range(5):
            await up.post()
        assert len(up.fake.connections) == 1

    run(tmp_path, test)


# Tokens


@pytest.mark.parametrize(
    "shown",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}",
     f"Bearer {INNER}", f"Bearer {TOKEN} {TOKEN}", "Bearer \u00e9"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predictions/m", "/predictions/other", "/v2/models/m/infer", "/nowhere"])
def test_without_the_token_nothing_is_told(shown: str | None, path: str, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        headers = {"Content-Type": "image/png"} | ({} if shown is None else {"Authorization": shown})
        async with up.session.post(up.url + path, data=b"image", headers=headers) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert TOKEN not in await response.text()
        assert not up.fake.seen

    run(tmp_path, test)


def test_a_renewed_token_ends_the_old_one_at_once(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        assert (await up.post())[0] == 200
        up.token_file.write_text(json.dumps({"inference": {"key": "another1"}}))
        assert (await up.post())[0] == 401
        assert (await up.post(headers={**PNG, "Authorization": "Bearer another1"}))[0] == 200

        os.replace(up.token_file, up.token_file.with_name("away"))
        assert (await up.post(headers={**PNG, "Authorization": "Bearer another1"}))[0] == 200, "until there is one"
        up.token_file.write_text("plain-text-token\n")
        up.token_file.chmod(0o600)
        assert (await up.post(headers={**PNG, "Authorization": "Bearer plain-text-token"}))[0] == 200
        assert (await up.post(headers={**PNG, "Authorization": "Bearer another1"}))[0] == 401

    run(tmp_path, test)


def test_torchserves_key_is_read_again_when_it_was_renewed(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            if up.fake.seen[-1][1]["Authorization"] == f"Bearer {INNER}":
                (tmp_path / "inner").write_text(json.dumps({"inference": {"key": "newer-key"}}))
                error = {"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed."}
                return web.json_response(error, status=400)
            return said({"label": "b"})

        up.fake.reply = reply
        assert await up.post() == (200, {"label": "b"})
        assert len(up.fake.seen) == 2

    run(tmp_path, test)


# Types and lengths


@pytest.mark.parametrize(
    ("type", "status"),
    [("image/png", 200), ("IMAGE/JPEG", 200), ("application/octet-stream", 200), ("application/json", 200),
     ("text/plain; charset=utf-8", 200), ("multipart/form-data; boundary=x", 200),
     ("application/x-www-form-urlencoded", 415), ("text/html", 415), ("application/jsonx", 415), ("", 415),
     ("image/", 415), ("image/png, text/plain", 415)],
)  # fmt: skip
def test_types(type: str, status: int, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        assert (await up.post(headers={**BEARER, "Content-Type": type}))[0] == status
        assert len(up.fake.seen) == (status == 200)

    run(tmp_path, test)


def test_a_missing_type_is_json_by_the_open_inference_protocol_alone(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        untyped = {"skip_auto_headers": ["Content-Type"], "headers": BEARER}
        assert (await up.post(**untyped))[0] == 415
        assert (await up.post("/v2/models/m/infer", **untyped))[0] == 200
        assert up.fake.seen[0][1][TYPE] == "application/json"
        assert (await up.post("/v2/models/m/infer"))[0] == 415

    run(tmp_path, test)


def test_odd_types_and_encodings_are_refused(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        assert (await up.post(headers={**PNG, "Content-Encoding": "br"}))[0] == 415
        start = f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        twice = await raw(up, f"{start}Content-Type: image/png\r\nContent-Type: text/plain\r\n\r\n".encode())
        odd = await raw(up, start.encode() + b"Content-Type: image/png; x=\xff\xe9\r\n\r\n")
        assert (twice.split()[1], odd.split()[1]) == (b"400", b"415")
        assert not up.fake.seen

    run(tmp_path, test)


def test_too_large_by_its_length_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        length = LIMITS.body + 1
        head = (
            f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n"
        )
        async with connection(up) as (reader, writer):
            writer.write(f"{head}Content-Type: image/png\r\nExpect: 100-continue\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 "), "and the client isn't asked for the body"

        assert (await up.post(data=b"x" * length))[0] == 413
        assert not up.fake.seen

    run(tmp_path, test)


def compressed(body: bytes, bits: int = 31) -> bytes:
    """As gzip; with 15 bits as deflate."""
    return (stream := zlib.compressobj(9, wbits=bits)).compress(body) + stream.flush()


GZIP, DEFLATE = ({**PNG, "Content-Encoding": name} for name in ("gzip", "deflate"))


def test_a_compressed_body_is_passed_on_inflated(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        noise = os.urandom(90_000)
        for body in (b"image", noise, bytes(LIMITS.body), b""):
            assert (await up.post(data=compressed(body), headers=GZIP))[0] == 200
            assert (await up.post(data=compressed(body, 15), headers=DEFLATE))[0] == 200
            assert [seen[2] for seen in up.fake.seen[-2:]] == [body] * 2
        assert "Content-Encoding" not in up.fake.seen[0][1]

    run(tmp_path, test)


def test_a_bomb_is_refused_and_holds_nothing(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        bomb = compressed(bytes(50_000_000))
        assert len(bomb) < LIMITS.body
        status, answer = await up.post(data=bomb, headers=GZIP)
        assert (status, answer["error"]) == (413, f"the request has more than {LIMITS.body} bytes")
        assert up.gateway._bodies._held == 0

    run(tmp_path, test)


@pytest.mark.parametrize(
    "body", [b"", b"image", compressed(b"image" * 99)[:-9], compressed(b"image")[:-1], compressed(b"image") + b"x"]
)
def test_what_isnt_one_whole_compressed_body_is_refused(body: bytes, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        status, answer = await up.post(data=body, headers=GZIP)
        assert (status, "compressed" in answer["error"], up.fake.seen) == (400, True, [])

    run(tmp_path, test)


# What standard clients ask


def test_the_length_of_the_json_before_binary_tensors_is_passed_on_both_ways(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(_: bytes) -> Reply | web.Response:
            return Reply(200, b"{}xy", headers={HEADER_LENGTH: "2"})

        up.fake.reply = reply
        headers = {**BEARER, HEADER_LENGTH: "3", "Content-Type": "application/octet-stream"}
        async with up.session.post(up.url + "/v2/models/m/infer", data=b"{ }ab", headers=headers) as response:
            assert (response.status, response.headers[HEADER_LENGTH], await response.read()) == (200, "2", b"{}xy")
        assert up.fake.seen[0][1][TYPE] == "application/json; inference-header-content-length=3"
        for wrong in ("", "-1", "a", "9" * 20):
            assert (await up.post("/v2/models/m/infer", headers={**headers, HEADER_LENGTH: wrong}))[0] == 400

    run(tmp_path, test)


def test_the_server_and_versions_are_described(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async with up.session.get(up.url + "/v2", headers=BEARER) as response:
            told = await response.json()
        assert (told["name"], told["extensions"]) == ("trainyard", ["binary_tensor_data"])
        assert await up.get("/v2") == 401
        for path in ("/v2/models/m/versions/{}", "/v2/models/m/versions/{}/ready"):
            assert [await up.get(path.format(version), **BEARER) for version in ("1.0", "2", "9")] == [200, 200, 404]
        for path in ("/v2/models/m/versions/9/infer", "/predictions/m/9"):
            assert (await up.post(path, headers={**BEARER, "Content-Type": "application/json"}))[0] == 404
        assert not up.fake.seen
        for path in ("/v2/models/m/config", "/v2/models/m/stats", "/v2/models/m/trace/setting", "/v2/logging"):
            assert await up.get(path, **BEARER) == 404

    run(tmp_path, test)


def test_a_slash_at_the_end_and_encoded_letters_change_no_path(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        for path in ("/predictions/m/", "/predictions/m/1.0/", "/predictions/%6d", "/v2/models/%6D/versions/1%2e0"):
            method = "GET" if "v2" in path else "POST"
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
            answer = await raw(up, f"{head}Content-Type: image/png\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 "), (path, answer)
        assert [seen[0] for seen in up.fake.seen] == ["/predictions/m"] * 3
        for path in ("/v2/health/live/", "/v2/health/ready/", "/ping/"):
            assert await up.get(path) == 200, "without a token"
        assert [await up.get(path) for path in ("/v2/", "/v2/models/", "/v2/health/live/x", "/")] == [401] * 4
        assert [await up.get(path, **BEARER) for path in ("/v2/", "/v2/models/")] == [200] * 2

    run(tmp_path, test)


# Pages of other origins

PAGE = "https://example.com"


async def asked_by(up: Standing, origin: str, method: str = "POST", **headers: str) -> tuple[int, str | None]:
    """The status, and which origin may read the answer."""
    given = {"Content-Type": "image/png", "Origin": origin, **headers}
    async with up.session.request(method, up.url + "/predictions/m", headers=given) as response:
        assert (await response.read() == b"") == (response.status == 204)
        return response.status, response.headers.get("Access-Control-Allow-Origin")


def test_a_page_of_an_allowed_origin_may_ask_and_no_other(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert await asked_by(up, PAGE, "OPTIONS", **question) == (204, PAGE)
        assert await asked_by(up, PAGE) == (401, PAGE), "the page learns why"
        assert await asked_by(up, PAGE, **BEARER) == (200, PAGE)
        assert await asked_by(up, PAGE, "OPTIONS") == (401, PAGE)
        assert await asked_by(up, "https://evil.com", "OPTIONS", **question) == (401, None)
        assert await asked_by(up, "null", **BEARER) == (200, None)

    async def test_all(up: Standing) -> None:
        assert await asked_by(up, "null", **BEARER) == (200, "*")

    run(tmp_path, test, origins=[PAGE])
    run(tmp_path, test_all, origins=["*"])


@pytest.mark.parametrize(
    "origin", ["example.com", "https://example.com/", "https://Example.com", "", "https://a.b, https://c.d", "null"]
)
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    with pytest.raises(UsageError, match="isn't an origin"):
        check_origins(["*", PAGE, "http://localhost:3000", origin])


def test_without_the_option_no_page_is_answered(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        assert await asked_by(up, PAGE, "OPTIONS", **{"Access-Control-Request-Method": "POST"}) == (401, None)
        assert await asked_by(up, PAGE, **BEARER) == (200, None)

    run(tmp_path, test)


def test_too_large_without_a_length_is_refused_when_it_grows(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 1000

    async def test(up: Standing) -> None:
        assert (await up.post(data=endless()))[0] == 413
        assert not up.fake.seen

    run(tmp_path, test)


def test_a_client_that_waits_is_told_to_go_on(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        status, _ = await up.post(data=b"x" * 50_000, expect100=True)
        assert (status, len(up.fake.seen[0][2])) == (200, 50_000)

    run(tmp_path, test)


def test_a_body_that_never_comes_is_given_up(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        head = f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 10\r\n"
        answer = await raw(up, f"{head}Content-Type: image/png\r\nConnection: close\r\n\r\nabc".encode())
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert not up.fake.seen

    run(tmp_path, test, limits=replace(LIMITS, body_seconds=0.1))


def test_no_more_is_held_than_the_limit_and_room_is_given_back(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        go = asyncio.Event()

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({})

        up.fake.reply = reply
        tasks = [asyncio.create_task(up.post(data=b"x" * 90_000)) for _ in range(4)]
        await until(lambda: len(up.fake.seen) == 4)
        status, _ = await up.post(data=b"x" * 90_000)
        assert (status, len(up.fake.seen)) == (503, 4)
        go.set()
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 4
        assert (await up.post(data=b"x" * 90_000))[0] == 200

    run(tmp_path, test)


def test_too_many_requests_at_once(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        go = asyncio.Event()

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({})

        up.fake.reply = reply
        tasks = [asyncio.create_task(up.post()) for _ in range(2)]
        await until(lambda: len(up.fake.seen) == 2)
        async with up.session.post(up.url + "/predictions/m", data=b"x", headers=PNG) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
        go.set()
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200]

    run(tmp_path, test, limits=replace(LIMITS, requests=2))


# At the door


HEAD = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/png\r\n"
WHOLE = f"POST /predictions/m HTTP/1.1\r\n{HEAD}Content-Length: 5\r\n\r\nimage".encode()


async def answer_to(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter], *pieces: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Sends a request in pieces, and reads one answer."""
    reader, writer = client
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.02)
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, await reader.readexactly(int(headers["Content-Length"]))


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What comes to aiohttp."""
    received, real = list[bytes](), web.RequestHandler.data_received

    def data_received(self: web.RequestHandler, data: bytes) -> None:
        received.extend([data] if data and isinstance(self, Connection) else [])
        real(self, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", data_received)
    return received


@asynccontextmanager
async def busy(up: Standing) -> AsyncIterator[asyncio.Event]:
    """Has the model of limits that allow one request at once busy with one, until the event is set."""
    go = asyncio.Event()

    async def reply(body: bytes) -> Reply | web.Response:
        await go.wait()
        return said({"label": "a"})

    up.fake.reply = reply
    task = asyncio.create_task(up.post())
    await until(lambda: len(up.fake.seen) == 1)
    yield go
    go.set()
    assert (await task)[0] == 200


ONE = replace(LIMITS, requests=1)


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        (b"/predictions/m ", b"image/png"),
        (b"/predictions/m ", b"application/json; charset=utf-8"),
        (b"/v2/models/m/infer ", b"application/json"),
        (b"/v2/models/m/infer ", b"x/y\r\nInference-Header-Content-Length: 3"),
    ],
)
def test_the_door_answers_as_the_application_does(
    path: bytes, type_: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture, passed: list[bytes]
) -> None:
    """With the same words, as well logged and counted, and TorchServe gets the same."""
    facts = Facts(2, 1.5, 2.5, 2, (0, 1), (0.9, 0.8), {})
    request = WHOLE.replace(b"/predictions/m ", path).replace(b"image/png", type_)
    caplog.set_level(logging.INFO)

    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            return Reply(200, b'{"label": "a"}', headers={"X-Of-Worker": "w"}, facts=facts)

        up.fake.reply = reply
        async with connection(up) as client:
            named = request.replace(b"Host", b"X-Request-Id: mine\r\nConnection: keep-alive\r\nHost")
            at_door = await answer_to(client, named)
            assert passed == []
            by_application = await answer_to(client, named[:-1], named[-1:])
            assert passed
            for _, headers, _ in (at_door, by_application):
                assert headers.pop("Date").endswith(" GMT")
            assert at_door == by_application
            assert at_door[0] == 200
            assert up.fake.seen[0] == up.fake.seen[1]
            first, second = (replace(entry, ms=0, queue_ms=0) for entry in entries(caplog))
            assert first == second
            assert 'status="200",version="1.0"} 2.0' in up.metrics.text().decode()

    run(tmp_path, test)


def test_the_door_refuses_as_the_application_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, passed: list[bytes]
) -> None:
    """In the same words, counted alike, and the connection goes on."""

    async def test(up: Standing) -> None:
        named = WHOLE.replace(b"Host", b"X-Request-Id: mine\r\nConnection: keep-alive\r\nHost")
        caplog.set_level(logging.INFO)
        async with connection(up) as client, busy(up) as go:
            at_door = await answer_to(client, named)
            assert (passed, entries(caplog)) == ([], [])
            by_application = await answer_to(client, named[:-1], named[-1:])
            assert passed
            for _, headers, _ in (at_door, by_application):
                assert headers.pop("Date").endswith(" GMT")
            assert at_door == by_application
            assert (at_door[0], at_door[1]["Retry-After"], at_door[1]["X-Request-Id"]) == (503, "1", "mine")
            go.set()
            await until(lambda: 'status="200"' in up.metrics.text().decode())
            assert (await answer_to(client, WHOLE))[0] == 200, "it can be let in again"
        counted = 'trainyard_requests_total{model="m",reason="overload",status="503",version="1.0"} 2.0'
        assert counted in up.metrics.text().decode()

    run(tmp_path, test, limits=ONE)


def test_the_log_tells_once_a_second_what_the_door_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainyard.gateway.door.TELL_SECONDS", 0.2)

    async def test(up: Standing) -> None:
        async with connection(up) as client, busy(up):
            for _ in range(5):
                assert (await answer_to(client, WHOLE))[0] == 503
            await until(lambda: "refused" in caplog.text)

    run(tmp_path, test, limits=ONE)
    assert [one.getMessage() for one in caplog.records if "refused" in one.getMessage()] == [
        "5 requests of m were refused within a second: too many at once"
    ]


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([WHOLE.replace(TOKEN.encode(), b"another-token")], 401),
        ([WHOLE.replace(b"/m ", b"/n ")], 404),
        ([WHOLE.replace(b"/m ", b"/m/7 ")], 404),
        ([WHOLE.replace(b"POST", b"PUT")], 405),
        ([WHOLE.replace(b"/m ", b"/m?a ")], 400),
        ([WHOLE.replace(b"Length: 5", b"Length: 5\r\nContent-Length: 5")], 400),
        ([WHOLE.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost")], 400),
        ([WHOLE.replace(b"Host", b"Host : y\r\nHost")], 400),
        ([WHOLE.replace(b"Host", b"Expect: 100-continue\r\nHost")], 503),
        ([WHOLE.replace(b"Host", b"Connection: close\r\nHost")], 503),
        ([WHOLE[:30], WHOLE[30:]], 503),
    ],
)
def test_the_door_leaves_to_the_application_what_it_doesn_t_understand(
    tmp_path: Path, pieces: list[bytes], status: int, passed: list[bytes]
) -> None:
    async def test(up: Standing) -> None:
        async with connection(up) as client, busy(up):
            passed.clear()
            assert (await answer_to(client, *pieces))[0] == status
            assert b"".join(passed) == b"".join(pieces)

    run(tmp_path, test, limits=ONE)


def test_the_door_answers_nothing_that_is_within_another_request(tmp_path: Path, passed: list[bytes]) -> None:
    """Where half a head is with aiohttp, what looks like a request may be a part of that one, and a trap for the next.

    A proxy that has one connection for many clients would take the answer for that of the first, and the rest of its
    head would be put before the request of another client.
    """

    async def test(up: Standing) -> None:
        async with connection(up) as client, busy(up) as go:
            trap = f"POST /predictions/m HTTP/1.1\r\n{HEAD}Content-Length: 5\r\nX-Trap: ".encode()
            passed.clear()
            await answer_to(client, trap, WHOLE)
            assert b"".join(passed) == trap + WHOLE
        assert go.is_set()

    run(tmp_path, test, limits=ONE)


def test_the_door_keeps_the_order_of_requests_that_come_together(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        go = asyncio.Event()

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({"label": "a"})

        up.fake.reply = reply
        async with connection(up) as client:
            client[1].write(WHOLE)
            await until(lambda: len(up.fake.seen) == 1)
            client[1].write(WHOLE)  # the model is still busy with the first
            asyncio.get_running_loop().call_later(0.1, go.set)
            assert [(await answer_to(client))[0] for _ in range(2)] == [200, 200]

    run(tmp_path, test, limits=ONE)


def test_the_door_counts_those_that_it_has_just_let_in(tmp_path: Path, passed: list[bytes]) -> None:
    """Of a crowd that comes at one instant it refuses all but as many as the model may have."""

    async def test(up: Standing) -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connection(up)) for _ in range(20)]
            assert {(await answer_to(client, WHOLE))[0] for client in clients} == {200}
            go = asyncio.Event()

            async def reply(body: bytes) -> Reply | web.Response:
                await go.wait()
                return said({"label": "a"})

            up.fake.reply = reply
            for _, writer in clients:
                writer.write(WHOLE)
            asyncio.get_running_loop().call_later(0.3, go.set)
            answers = await asyncio.gather(*map(answer_to, clients))
        assert [status for status, _, _ in answers].count(200) == 3
        assert passed == []

    run(tmp_path, test, limits=replace(LIMITS, requests=3))


def test_what_comes_while_the_door_has_a_request_waits_and_is_bounded(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        go, many = asyncio.Event(), 60_000

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({"label": "a"})

        up.fake.reply = reply
        async with connection(up) as (reader, writer):
            writer.write(WHOLE)
            await until(lambda: len(up.fake.seen) == 1)
            writer.write(b"GET /v2 HTTP/1.1\r\n" + HEAD.encode() + b"\r\n" + WHOLE * many)
            await asyncio.sleep(0.3)
            assert len(up.fake.seen) == 1
            assert writer.transport.get_write_buffer_size() > 0, "the server reads no more than it must hold"
            assert not up.gateway._connections._silent, "it waits for an answer"
            go.set()
            statuses = [(await answer_to((reader, writer)))[0] for _ in range(20)]
            assert statuses == [200] * 20

    run(tmp_path, test)


def test_a_mistake_of_ours_is_answered_at_the_door_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(up: Standing) -> None:
        async def predict(*_: object) -> Reply:
            raise KeyError("ours")

        monkeypatch.setattr(up.gateway._proxy, "predict", predict)
        async with connection(up) as client:
            for _ in range(2):
                assert (await answer_to(client, WHOLE))[0] == 500

    run(tmp_path, test)
    assert [entry.status for entry in entries(caplog)] == [500, 500]
    assert caplog.text.count("KeyError: 'ours'") == 2


def test_a_connection_that_is_silent_for_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.gateway.connections.IDLE_SECONDS", 0.4)

    async def test(up: Standing) -> None:
        for _ in range(5):
            async with connection(up) as client:
                assert (await answer_to(client, WHOLE))[0] == 200
            await until(lambda: not up.gateway._connections._open)
        async with connection(up) as answered, connection(up) as (never, _):
            scheduled = getattr(asyncio.get_running_loop(), "_scheduled")  # noqa: B009
            sweeps = [one for one in scheduled if "_end_silent" in repr(one) and not one.cancelled()]
            assert len(sweeps) == 1
            for _ in range(4):
                assert (await answer_to(answered, WHOLE))[0] == 200
                await asyncio.sleep(0.2)
            assert await never.read() == await answered[0].read() == b""

        async def reply(body: bytes) -> Reply | web.Response:
            await asyncio.sleep(1)
            return said({"label": "a"})

        up.fake.reply = reply
        async with connection(up) as waiting:
            assert (await answer_to(waiting, WHOLE))[0] == 200, "it isn't silent while it waits"

    run(tmp_path, test)


def test_what_is_let_in_and_never_comes_to_the_application_leaves_room_for_others(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async with connection(up) as client:  # a header that aiohttp takes for too long
            assert (await answer_to(client, WHOLE.replace(b"Host: x", b"Host: " + b"x" * 10_000)))[0] == 400
        await until(lambda: not up.gateway._connections._open)
        assert (await up.post())[0] == 200

    run(tmp_path, test, limits=ONE)


@pytest.mark.parametrize(
    "request_",
    [b"GARBAGE\r\n\r\n",
     b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
     b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"POST /predictions/m HTTP/1.1\r\nHost : x\r\n\r\n", b"GET /ping HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
     b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"],
    ids=["garbage", "two lengths", "length and chunks", "space in a name", "long header", "encodings"],
)  # fmt: skip
def test_what_isnt_http_is_refused_in_json_and_the_connection_closed(request_: bytes, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        answer = await raw(up, request_)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == b"400"
        assert "error" in json.loads(body)
        assert not up.fake.seen

    run(tmp_path, test)


# The log


def entries(caplog: pytest.LogCaptureFixture) -> list[Entry]:
    return [record.entry for record in caplog.records if hasattr(record, "entry")]


def test_each_request_is_a_line_of_the_log_with_an_id_that_the_client_gets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def test(up: Standing) -> None:
        up.token_file.write_text(f"shop {TOKEN}\n")
        headers = {**PNG, "X-Request-Id": "mine-1"}
        async with up.session.post(up.url + "/predictions/m/1.0", data=b"image", headers=headers) as response:
            assert response.headers["X-Request-Id"] == "mine-1"
        assert (await up.post("/predictions/none?a=1"))[0] == 404
        assert (await up.post(headers={}))[0] == 401
        assert await up.get("/ping") == 200

    run(tmp_path, test)
    served, missing, unknown = entries(caplog)
    assert served.ms > 0
    assert replace(served, ms=0) == Entry("mine-1", "/predictions/m/1.0", "m", "1.0", "shop", 5, 1, 200)
    assert (missing.path, missing.model, missing.token, missing.status) == ("/predictions/none", None, "shop", 404)
    assert missing.reason == "there is no model none; there are m"
    assert (unknown.token, unknown.status, unknown.bytes) == (None, 401, 0)


@pytest.mark.parametrize("sent", [b"", b"xyz"])
def test_a_client_that_leaves_is_a_line_at_debug(sent: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            await until(writer.is_closing)
            await asyncio.sleep(0.1)
            return said({})

        up.fake.reply = reply
        async with connection(up) as (_, writer):
            writer.write(head(3) + sent)
            await until(lambda: up.gateway._in_hand.count == 1 and len(up.fake.seen) == bool(sent))
        await until(lambda: not up.gateway._in_hand.count)

    run(tmp_path, test)
    [entry] = entries(caplog)
    assert (entry.status, entry.bytes) == (LEFT, len(sent))
    assert not [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info]


# One client against the others


def head(length: int) -> bytes:
    start = f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n"
    return f"{start}Content-Type: image/png\r\n\r\n".encode()


@asynccontextmanager
async def connections(up: Standing, starts: list[bytes]) -> AsyncIterator[list[asyncio.StreamReader]]:
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for start in starts:
            reader, writer = await stack.enter_async_context(connection(up))
            writer.write(start)
            readers.append(reader)
        yield readers


def test_declared_slow_idle_and_half_open_ones_cost_others_nothing(tmp_path: Path) -> None:
    attack = [head(LIMITS.body)] * 20 + [head(20_000) + b"x" * 100] * 60 + [b""] * 30 + [b"POST /predictions/m HT"] * 30

    async def test(up: Standing) -> None:
        async with connections(up, attack) as readers:
            for size in (10, 90_000) * 25:
                assert (await up.post(data=b"x" * size))[0] == 200
            for reader in readers[:80]:
                assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")

    run(tmp_path, test, limits=replace(LIMITS, requests=16, grace_seconds=0.5))


def test_a_body_that_keeps_the_rate_may_take_longer_than_the_grace(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def steady() -> AsyncIterator[bytes]:
            for _ in range(10):
                await asyncio.sleep(0.05)
                yield b"x" * 1000

        assert (await up.post(data=steady()))[0] == 200
        assert len(up.fake.seen[0][2]) == 10_000

    run(tmp_path, test, limits=replace(LIMITS, grace_seconds=0.2, rate=1_000.0))


def test_large_bodies_leave_room_for_small_ones(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async with connections(up, [head(95_000) + b"x" * 90_000] * 3):
            await until(lambda: up.gateway._bodies._held == 270_000)
            assert (await up.post(data=b"x" * 90_000))[0] == 503
            assert (await up.post(data=b"x" * 10_000))[0] == 200

    run(tmp_path, test, limits=replace(LIMITS, small=10_000))


def test_one_connection_too_many_ends_the_longest_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(up: Standing) -> None:
        go = asyncio.Event()

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({})

        up.fake.reply = reply
        asked = asyncio.create_task(up.post())
        await until(lambda: len(up.fake.seen) == 1)
        async with connections(up, [b""] * 50) as readers:
            for reader in readers[:41]:
                assert await reader.read() == b""
            assert not readers[-1].at_eof()
            assert len(caplog.records) < 3, "a line a second"
            go.set()
            assert (await asked)[0] == 200, "what waits for an answer gets it"
            assert (await up.post())[0] == 200

    run(tmp_path, test, limits=replace(LIMITS, connections=10))
    assert "10 connections fit at once" in caplog.text


def test_there_are_fewer_connections_than_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert Connections(4096).most == 480
    assert Connections(100).most == 100


@pytest.mark.parametrize("body", [b"5\r\nabcXX\r\nzz\r\n", b"5\r\nab", b"-1\r\n\r\n"])
def test_a_body_in_chunks_that_are_wrong_or_cut_off_reaches_no_model(
    body: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(up: Standing) -> None:
        start = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        async with connection(up) as (reader, writer):
            writer.write(start + body)
            writer.write_eof()
            answer = await reader.read()
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        assert not up.fake.seen
        assert (await up.post())[0] == 200

    run(tmp_path, test)
    assert not [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info]


# What TorchServe answers


@pytest.mark.parametrize(
    ("status", "message", "expected", "says"),
    [
        (200, "", 200, ""),
        (400, "", 400, ""),
        (404, "Model not found: m", 404, "no model m"),
        (413, "", 413, "of the handler"),
        (413, "Request is too large.", 413, "the request is too large"),
        (507, "Out of resources", 503, "memory"),
        (503, 'Model "m" has no worker to serve inference request.', 503, "waiting"),
        (503, "Prediction failed", 500, "failed"),
        (500, "number of batch response mismatched", 500, "failed"),
    ],
)
def test_codes(status: int, message: str, expected: int, says: str, tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            if not message:
                return said({"error": "of the handler"}, status)
            return web.json_response({"code": status, "type": "X", "message": message}, status=status)

        up.fake.reply = reply
        async with up.session.post(up.url + "/predictions/m", data=b"x", headers=PNG) as response:
            answer = await response.json()
            assert response.status == expected
            assert ("Retry-After" in response.headers) == (expected == 503)
        assert says in answer["error"]
        assert "code" not in answer
        assert len(up.fake.seen) == 1, "nothing is sent twice"

    run(tmp_path, test)


def test_an_answer_that_never_comes_is_504(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            await asyncio.sleep(GENEROUS)
            return web.Response()

        up.fake.reply = reply
        status, answer = await up.post()
        assert (status, "0.1 s" in answer["error"]) == (504, True)

    run(tmp_path, test, seconds=0.1)


DIED = {"code": 507, "type": "InternalServerException", "message": "Worker died."}


def test_a_worker_that_took_too_long_is_504_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with standing(tmp_path, workers=replace(WORKERS, seconds=0.2)) as up:

            async def reply(body: bytes) -> Reply | web.Response:
                await asyncio.sleep(0.25)
                return web.json_response(DIED, status=507)

            up.fake.reply = reply
            status, answer = await up.post()
            assert (status, len(up.fake.seen)) == (504, 1)
            assert "0.2 s" in answer["error"]

    asyncio.run(main())


@pytest.mark.parametrize(("status", "message"), [(500, "Worker died."), (507, "Worker died."), (500, "scaled down")])
def test_of_a_lost_batch_all_are_answered_but_the_one_that_ends_workers_alone(
    status: int, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            await asyncio.sleep(0.02)
            return web.json_response({"message": message}, status=status) if body == b"bad" else said({})

        up.fake.reply = reply
        bodies = [f"{number}".encode() for number in range(7)] + [b"bad"]
        answers = await asyncio.gather(*(up.post(data=body) for body in bodies))
        assert [status for status, _ in answers] == [200] * 7 + [422]
        with_it = sum(up.fake.batches) - 8 - 2
        assert 0 < with_it < 8, "each of its neighbours once more"
        assert up.fake.batches[-with_it - 2 :] == [1] * (with_it + 2), "alone"
        seen = len(up.fake.seen)
        assert (await up.post(data=b"bad"))[0] == 422
        assert (await up.post(data=b"bad2"))[0] == 200
        assert len(up.fake.seen) == seen + 1, "what is refused reaches no worker"

    run(tmp_path, test, workers=Workers(count=1, batch_size=8))
    assert "alone" in caplog.text


def test_a_whole_request_has_a_limit_its_body_included(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            await asyncio.sleep(0.3)
            return said({})

        up.fake.reply = reply
        assert (await up.post())[0] == 200
        async with connection(up) as (reader, writer):
            writer.write(head(1))
            await asyncio.sleep(0.3)
            writer.write(b"x")
            assert (await reader.readline()).startswith(b"HTTP/1.1 504 ")

    run(tmp_path, test, seconds=0.5)


def test_without_torchserve_it_is_503(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            up.fake.url = url_of(gone)
        assert (await up.post())[0] == 503

    run(tmp_path, test)


# Health


def test_probes_need_no_token_and_tell_yes_or_no(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        health = up.gateway.health
        for phase, missing, ready in (
            (Phase.STARTING, frozenset[str](), 503),
            (Phase.SERVING, frozenset[str](), 200),
            (Phase.SERVING, frozenset({"m"}), 503),
            (Phase.DRAINING, frozenset[str](), 503),
        ):
            health.phase, health.missing = phase, missing
            assert await up.get("/v2/health/live") == 200
            assert await up.get("/v2/health/ready") == await up.get("/ping") == ready
            assert await up.get("/v2/models/m/ready", **BEARER) == ready
        assert await up.get("/v2/models/m/ready") == await up.get("/v2/models/m") == await up.get("/v2/models") == 401

    run(tmp_path, test)


def test_models_are_described(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async with up.session.get(up.url + "/v2/models", headers=BEARER) as response:
            assert await response.json() == {"models": ["m"]}
        async with up.session.get(up.url + "/v2/models/m", headers=BEARER) as response:
            assert await response.json() == {"name": "m", "versions": ["1.0", "2"]}
        assert await up.get("/v2/models/other", **BEARER) == 404

    run(tmp_path, test)


def test_a_deep_probe_is_shared_by_all_that_ask(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        asked = 0
        wrong: str | None = None

        async def check() -> str | None:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.01)
            return wrong

        path = "/v2/health/ready?deep=1"
        assert await up.get(path) == 503, "nothing has been asked yet"
        up.gateway.health.check_deeply_by(check)
        assert set(await asyncio.gather(*(up.get(path) for _ in range(20)))) == {200}
        assert asked == 1
        wrong = "a wrong label"
        up.gateway.health.check_deeply_by(check)
        assert (await up.get(path), asked) == (503, 2)
        assert await up.get("/v2/health/ready") == 200

    run(tmp_path, test)


def test_while_it_starts_nothing_is_let_in(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        for phase, status in ((Phase.STARTING, 503), (Phase.SERVING, 200)):
            up.gateway.health.phase = phase
            assert (await up.post())[0] == status

    run(tmp_path, test)


# The end


def test_one_that_leaves_says_that_it_isnt_ready_and_takes_requests(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        leaving = asyncio.create_task(up.gateway.leave(0.2))
        await until(lambda: up.gateway.health.phase is Phase.LEAVING)
        while not leaving.done():
            assert await up.get("/v2/health/ready") == await up.get("/v2/models/m/ready", **BEARER) == 503
            assert await up.get("/v2/health/live") == 200
            # On a connection of its own.
            async with aiohttp.request("POST", up.url + "/predictions/m", data=b"x", headers=PNG) as response:
                assert response.status == 200

    run(tmp_path, test)


def test_a_drain_answers_what_came_in_before(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        go = asyncio.Event()

        async def reply(body: bytes) -> Reply | web.Response:
            await go.wait()
            return said({"label": body.decode()})

        up.fake.reply = reply
        tasks = [asyncio.create_task(up.post(data=f"{i}".encode())) for i in range(20)]
        head = f"POST /predictions/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 4\r\n"
        # One whose body is still on its way, and one idle connection.
        async with connection(up) as (reader, writer), connection(up) as (idle, _):
            writer.write(f"{head}Content-Type: image/png\r\n\r\nla".encode())
            await until(lambda: len(up.fake.seen) == 20 and up.gateway._in_hand.count == 21)

            drained = asyncio.create_task(up.gateway.drain(GENEROUS))
            await until(lambda: not up.gateway._listener.is_serving())
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*up.url.removeprefix("http://").split(":"))
            assert not drained.done()
            writer.write(b"te")
            go.set()

            assert [await task for task in tasks] == [(200, {"label": f"{i}"}) for i in range(20)]
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in answer
            assert answer.endswith(b'{"label": "late"}')
            assert await drained
            await up.gateway.close()
            assert await idle.read() == b""

    run(tmp_path, test)


def test_a_request_on_an_open_connection_is_still_answered_while_draining(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        assert (await up.post())[0] == 200
        drained = asyncio.create_task(up.gateway.drain(GENEROUS))
        await until(lambda: not up.gateway._listener.is_serving())
        async with up.session.post(up.url + "/predictions/m", data=b"x", headers=PNG) as response:
            assert (response.status, response.headers["Connection"]) == (200, "close")
        assert await drained

    run(tmp_path, test)


def test_a_drain_resets_no_connection_that_the_system_has_accepted(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        host, _, port = up.url.removeprefix("http://").partition(":")
        clients: list[socket.socket] = []

        def connect() -> None:  # between any two steps of the loop, until there is nobody to connect to
            with contextlib.suppress(ConnectionRefusedError):
                clients.append(socket.create_connection((host, int(port)), GENEROUS))
                clients[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                asyncio.get_running_loop().call_soon(connect)

        connect()
        assert await up.gateway.drain(GENEROUS)
        assert clients
        for client in clients:
            with client:
                assert client.recv(100).startswith(b"HTTP/1.1 200 ")

    run(tmp_path, test)


def test_a_drain_has_a_limit(tmp_path: Path) -> None:
    async def test(up: Standing) -> None:
        async def reply(body: bytes) -> Reply | web.Response:
            await asyncio.sleep(GENEROUS)
            return web.Response()

        up.fake.reply = reply
        task = asyncio.create_task(up.post())
        await until(lambda: len(up.fake.seen) == 1)
        assert not await up.gateway.drain(0.1)
        await up.gateway.close()
        with pytest.raises(aiohttp.ClientError):
            await task

    run(tmp_path, test)


# What is told of requests


def test_what_a_worker_tells_is_for_the_log_and_metrics_and_not_for_the_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    facts = Facts(2, 1.0, 4.0, 2, [0, 1], [0.9, 0.8], {"length": [3.0, 4.0]})

    async def test(up: Standing) -> None:
        async def reply(_: bytes) -> Reply | web.Response:
            return said({"label": "a"})._replace(facts=facts)

        up.fake.reply = reply
        async with up.session.post(up.url + "/predictions/m", data=b"image", headers=PNG) as response:
            assert await response.json() == {"label": "a"}
            assert not [name for name in response.headers if "trainyard" in name.lower()]
        assert await up.get("/v2/health/ready") == 200
        assert (await up.post("/predictions/m", headers={**BEARER, "Content-Type": "text/html"}))[0] == 415

        text = up.metrics.text().decode()
        assert 'trainyard_predictions_total{label="b",model="m",version="1.0"} 1.0' in text
        assert 'trainyard_requests_total{model="m",reason="unsupported_media_type",status="415"' in text
        assert text.count("\ntrainyard_requests_total{") == 2, "probes aren't counted"

    run(tmp_path, test)
    [entry, _] = [record.entry for record in caplog.records if hasattr(record, "entry")]
    assert (entry.version, entry.items, entry.model_ms, entry.code) == ("1.0", 2, 4.0, None)
    assert entry.queue_ms is not None
    assert 0 <= entry.queue_ms <= entry.ms
