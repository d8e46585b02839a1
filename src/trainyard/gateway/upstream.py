"""Connections to TorchServe that stay open. aiohttp's client would take as much time as all the rest of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

JOINED = 1 << 16
"""Bytes of a body that are sent in one go with the head; copying a larger one costs more than a call."""


class Response(NamedTuple):
    """What TorchServe answered; the headers by their names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """Asks a server of ours, which answers each request with a ``Content-Length``, as TorchServe does.

    A connection has one request at a time; one whose answer isn't waited for any more is closed.
    """

    def __init__(self) -> None:
        self._idle: list[_Connection] = []
        self._url = ""

    async def post(self, url: str, path: str, headers: Mapping[str, str], body: Sequence[bytes]) -> Response:
        """Sends a request and gives the answer to it.

        Args:
            url: The server's. If it isn't that of the last request, the connections to that are closed.
            path: What is asked there.
            headers: Beside ``Host`` and ``Content-Length``.
            body: Of the request, in pieces.

        Raises:
            OSError: the server can't be reached, or closed the connection before it answered.
        """
        if url != self._url:
            self.close()
            self._url = url
        place = urlsplit(url)
        assert place.hostname is not None, "it is ours"
        assert place.port is not None, "it is ours"
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                break
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, place.hostname, place.port)
        lines = [f"POST {path} HTTP/1.1", f"Host: {place.netloc}", f"Content-Length: {sum(map(len, body))}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            response = await connection.ask("\r\n".join([*lines, "\r\n"]).encode("latin-1"), body)
        except BaseException:
            connection.close()
            raise
        if url == self._url and response.headers.get("connection", "").lower() != "close":
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        """Closes the connections that no request has."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    is_closed = False

    def __init__(self) -> None:
        self._waiting: asyncio.Future[Response] | None = None
        self._received = bytearray()
        self._head: tuple[int, dict[str, str], int] | None = None

    def ask(self, head: bytes, body: Sequence[bytes]) -> asyncio.Future[Response]:
        self._waiting = asyncio.get_running_loop().create_future()
        if sum(map(len, body)) <= JOINED:
            self._transport.write(b"".join([head, *body]))
        else:
            for piece in (head, *body):
                self._transport.write(piece)
        return self._waiting

    def close(self) -> None:
        self.is_closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._head is None and (end := self._received.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            del self._received[: end + 4]
            self._head = int(first.split(" ")[1]), headers, int(headers["content-length"])
        if self._head is not None and len(self._received) >= self._head[2]:
            status, headers, _ = self._head
            response = Response(status, headers, bytes(self._received))
            self._head = None
            self._received.clear()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(f"TorchServe closed the connection ({exc})"))
