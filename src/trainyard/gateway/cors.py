"""Pages of other origins that may ask the server from a browser (CORS)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from trainyard.base.errors import UsageError
from trainyard.http.request_types import HEADER_LENGTH

ANY = "*"
ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": f"Authorization, Content-Type, Content-Encoding, X-Request-Id, {HEADER_LENGTH}",
    "Access-Control-Max-Age": "600",
}
"""What is told to a browser that asks before it sends a request; that question needs no token."""
SEEN = f"X-Request-Id, Retry-After, {HEADER_LENGTH}"
"""Headers of answers that a page may read."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]-]+")
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def check_origins(origins: Collection[str]) -> tuple[str, ...]:
    """Origins as browsers write them; raises ``UsageError`` for what is none, which would never be equal to one."""
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise UsageError(
                f"{origin!r} isn't an origin: give --cors-origin as https://example.com, without a path, or *"
            )
    return tuple(origins)


def allowing(origins: Collection[str]) -> Middleware:
    """Has browsers give answers to pages of these origins, as in ``https://example.com``; ``*`` stands for all.

    A page shows the token itself, and no cookie counts: an origin that isn't allowed has no way in either way.
    """

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is None or not (ANY in origins or origin in origins):
            return await handler(request)
        is_question = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = web.Response(status=204, headers=ALLOWED) if is_question else await handler(request)
        response.headers["Access-Control-Allow-Origin"] = ANY if ANY in origins else origin
        response.headers["Access-Control-Expose-Headers"] = SEEN
        response.headers["Vary"] = "Origin"
        return response

    return allow
