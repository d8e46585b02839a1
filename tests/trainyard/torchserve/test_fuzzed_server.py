"""Ten thousand odd requests to a real server: each is answered or refused, and nothing restarts or grows.

``python benchmarks/fuzz.py 100000`` sends more.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainyard.torchserve.running import Running, running

REQUESTS, AT_ONCE, FIRST = int(os.environ.get("FUZZ_REQUESTS", "10000")), 20, 1_000
MOST_GROWTH = 0.05
LIMITS_MB = 200
"""Java keeps what it needed for the largest body that it has seen; its heap is bounded."""
TYPES = ["application/json", "application/json; charset=utf-8", "application/octet-stream", "image/png", "image/jpeg",
         "text/plain", "multipart/form-data; boundary=B"]  # fmt: skip
PATHS = [f"/{path}" for name in ("images", "texts") for path in (
    f"predictions/{name}", f"predictions/{name}/1.0", f"v2/models/{name}/infer", f"v2/models/{name}/versions/1.0/infer"
)]  # fmt: skip
KEYS = ("text", "image", "instances", "inputs", "name", "shape", "datatype", "data", "id", "parameters", "top_k")


def png(size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((size, size), 60).save(file, "PNG")
    return file.getvalue()


IMAGE = png()
IN_JSON = base64.b64encode(IMAGE).decode()
FORM = b'--B\r\nContent-Disposition: form-data; name="data"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
SOUND = [
    IMAGE,
    FORM + IMAGE + b"\r\n--B--\r\n",
    json.dumps({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": [IN_JSON, IN_JSON]}]}).encode(),
    json.dumps({"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b c"]}]}).encode(),
    BINARY := json.dumps(
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}
    ).encode()
    + b"\1\0\0\0a",
    json.dumps({"instances": [{"text": "a"}, {"text": "b"}]}).encode(),
    json.dumps({"image": IN_JSON, "top_k": 2}).encode(),
    "mein Paket ist verspätet".encode(),
]


def changed(body: bytes) -> st.SearchStrategy[bytes]:
    """The body, cut somewhere or with other bytes in places."""
    places = st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=5)

    def change(chosen: list[tuple[int, int]]) -> bytes:
        array = bytearray(body)
        for place, value in chosen:
            array[place] = value
        return bytes(array)

    return places.map(change) | st.integers(0, len(body)).map(lambda length: body[:length])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(IN_JSON),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=400), JSON.map(lambda value: json.dumps(value).encode()), *(changed(body) for body in SOUND)
)


class Odd(NamedTuple):
    """A request. The length is what its header says, or none to say the truth."""

    path: str
    type: str
    body: bytes
    length: int | None


ODD = st.builds(Odd, st.sampled_from(PATHS), st.sampled_from(TYPES), BODIES,
                st.none() | st.none() | st.none() | st.integers(0, 500))  # fmt: skip


HEADERS = [
    "Content-Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Expect: 100-continue",
    "Content-Encoding: gzip", "Content-Encoding: deflate", f"Inference-Header-Content-Length: {len(BINARY) - 5}",
    "Content-Type: application/json", "Connection: upgrade", "Host: y", "Origin: null", "X: " + "y" * 9000,
]  # fmt: skip
RESTS = [
    b"", b"0\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"5\r\nab", b"-1\r\n", b"fffffffff\r\n",
    zlib.compress(b"a" * 99), BINARY,
]  # fmt: skip


def written(path: str, headers: list[str], rest: bytes) -> bytes:
    """A request as it goes over the line, with ``TOKEN`` for the token."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Authorization: Bearer TOKEN", *headers, "", ""]
    return "\r\n".join(lines).encode() + rest


MALFORMED = st.one_of(
    st.builds(written, st.sampled_from(PATHS), st.lists(st.sampled_from(HEADERS), max_size=4), st.sampled_from(RESTS)),
    changed(written(PATHS[0], ["Content-Type: text/plain", "Content-Length: 5"], b"abcde")),
    st.binary(max_size=200),
)


every_one = settings(
    max_examples=REQUESTS // AT_ONCE, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def server(exported_images: Path, exported_texts: Path) -> Iterator[Running]:
    models = [f"images={exported_images}", f"texts={exported_texts}"]
    with running(models, ["--format", "onnx", "--workers", "1"]) as server:
        yield server


class Sender:
    """Sends requests at the same time, over connections that stay."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.runner = asyncio.Runner()
        headers = {"Authorization": f"Bearer {server.token}"}
        self.client = httpx2.AsyncClient(base_url=server.inference_url, headers=headers, timeout=120)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        with self.runner:
            self.runner.run(self.client.aclose())

    def send(self, requests: list[Odd | bytes]) -> list[int]:
        """The status codes; a sound request beside them must get its answer."""
        return self.runner.run(self._send(requests))

    async def _send(self, requests: list[Odd | bytes]) -> list[int]:
        sound = self.client.post("/predictions/images", content=IMAGE, headers={"Content-Type": "image/png"})
        *codes, answer = await asyncio.gather(*map(self._one, requests), sound)
        assert answer.status_code == 200, answer.text
        return codes

    async def _one(self, odd: Odd | bytes) -> int:
        if isinstance(odd, bytes):
            return await self._write(odd.replace(b"TOKEN", self.server.token.encode()))
        if odd.length is not None:
            return await self._lie(odd)
        return (await self.client.post(odd.path, content=odd.body, headers={"Content-Type": odd.type})).status_code

    async def _lie(self, odd: Odd) -> int:
        """Sends a body of another length than the header says."""
        head = [f"POST {odd.path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.server.token}",
                f"Content-Type: {odd.type}", f"Content-Length: {odd.length}", "Connection: close", "", ""]  # fmt: skip
        return await self._write("\r\n".join(head).encode() + odd.body)

    async def _write(self, content: bytes) -> int:
        """The status of what is answered first; 0 if the connection ends without an answer."""
        host, _, port = self.server.inference_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(content)
            writer.write_eof()
            line = await asyncio.wait_for(reader.readline(), 120)
        except ConnectionError:
            line = b""
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return int(line.split()[1]) if line else 0


def memory(server: Running) -> dict[int, int]:
    """Bytes of each process of the server that are in memory."""
    process = psutil.Process(server.pid)
    return {one.pid: one.memory_info().rss for one in [process, *process.children(recursive=True)]}


@pytest.mark.slow
def test_fuzzed_requests_neither_break_a_worker_nor_leave_anything_behind(
    server: Running, record_property: pytest.RecordProperty
) -> None:
    seen: Counter[int] = Counter()
    after_the_first: dict[int, int] = {}

    @every_one
    @given(st.lists(ODD | ODD | MALFORMED, min_size=AT_ONCE, max_size=AT_ONCE))
    def fuzz(requests: list[Odd | bytes]) -> None:
        codes = sender.send(requests)
        assert not [pair for pair in zip(codes, requests, strict=True) if pair[0] >= 500]
        seen.update(codes)
        if not after_the_first and seen.total() >= FIRST:
            after_the_first.update(memory(server))

    before = memory(server)
    with Sender(server) as sender:
        fuzz()
    after = memory(server)

    record_property("codes", str(dict(seen)))
    assert seen.total() >= REQUESTS - AT_ONCE
    assert set(before) == set(after), "a process was started anew"
    assert {200, 400, 415} <= set(seen)
    # Java's heap is fixed, and takes its pages as it goes.
    ours = [pid for pid in after if psutil.Process(pid).name() != "java"]
    assert len(ours) == len(after) - 1
    assert sum(after[pid] for pid in ours) <= (1 + MOST_GROWTH) * sum(after_the_first[pid] for pid in ours)


def huge_png() -> bytes:
    """20,000 by 20,000 pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def many_images() -> bytes:
    """128 images of 49 million pixels each in 8 kB."""
    header = b"\x9d\x01\x2a" + (7000).to_bytes(2, "little") * 2
    image = b"RIFF\x1c\0\0\0WEBPVP8 \x10\0\0\0\x30\0\0" + header + bytes(6)
    instances = [{"image": base64.b64encode(image).decode()}] * 128
    return json.dumps({"instances": instances}, separators=(",", ":")).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "type", "make"),
    [
        ("images", "image/png", huge_png),
        ("images", "application/octet-stream", huge_png),
        ("texts", "text/plain", lambda: b"a word " * 1_500_000),
        ("texts", "application/json", lambda: json.dumps({"text": "a word " * 1_500_000}).encode()),
        ("texts", "application/json", lambda: b"[" * 10_000 + b"]" * 10_000),
        ("texts", "application/json", lambda: b'{"text":' * 10_000 + b'""' + b"}" * 10_000),
        ("images", "application/json", lambda: b'{"instances":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        ("images", "application/json", many_images),
        ("texts", "application/json", lambda: json.dumps({"instances": [{"text": "a b " * 25_000}] * 120}).encode()),
    ],
)
def test_what_would_fill_the_memory_is_refused(server: Running, model: str, type: str, make) -> None:
    body = make()
    before = memory(server)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": type}
    answer = httpx2.post(f"{server.inference_url}/predictions/{model}", content=body, headers=headers, timeout=120)
    after = memory(server)

    assert answer.status_code in (400, 413), answer.text
    assert "error" in answer.json()
    assert set(before) == set(after), "a process was started anew"
    assert sum(after.values()) - sum(before.values()) < LIMITS_MB * 1e6
