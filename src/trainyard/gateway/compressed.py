"""Bodies that a client compressed: inflated as they arrive, piece by piece, so that a limit ends one that is a bomb."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from aiohttp import StreamReader, web

ENCODINGS = ("identity", "gzip", "deflate")
"""What a body may be. Answers go as they are."""
PIECE = 1 << 18
"""Most bytes that are inflated at a time."""


def encoding_of(headers: Mapping[str, str]) -> str:
    """What a request says of its body, in small letters."""
    return headers.get("Content-Encoding", "identity").strip().lower()


class Inflated:
    """The content of a compressed body.

    Args:
        content: What arrives.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._stream = zlib.decompressobj(zlib.MAX_WBITS + 32)  # its head tells of gzip or deflate

    async def readany(self) -> bytes:
        """Some bytes, at most ``PIECE``; none at the end.

        Raises:
            HTTPBadRequest: it isn't compressed, is cut off, or goes on behind its end.
        """
        while True:
            arrived = self._stream.unconsumed_tail or await self._content.readany()
            try:
                piece = self._stream.decompress(arrived, PIECE)
            except zlib.error:
                raise web.HTTPBadRequest(reason="the body isn't compressed as its Content-Encoding says") from None
            if self._stream.unused_data or not (arrived or piece or self._stream.eof):
                raise web.HTTPBadRequest(reason="the compressed body is cut off, or goes on behind its end")
            if piece or not arrived:
                await asyncio.sleep(0)  # others have their turn between two pieces
                return piece
