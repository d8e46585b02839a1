"""aiohttp's connections, but for what they say of requests that aren't HTTP: JSON, as all that we answer."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from trainyard.gateway.proxy import failure


class JsonConnection(RequestHandler):
    """A client's connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered to a request that can't be read, and to one that we fail on."""
        if status >= 500:
            self.log_exception("Error handling a request", exc_info=exc)
        answer = failure(
            status, "that isn't a request of HTTP" if status < 500 else "the server failed on this request"
        )
        response = web.Response(body=answer.body, status=status, headers={"Content-Type": answer.content_type})
        response.headers["Server"] = "trainyard"
        response.force_close()
        return response


class JsonServer(web.Server):
    """Makes such connections."""

    def __call__(self) -> JsonConnection:
        return JsonConnection(self, loop=asyncio.get_running_loop(), **self._options)

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler)
        self._options = options
