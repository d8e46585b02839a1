"""Has TorchServe answer requests, and turns what it says when something is wrong into plain errors."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from aiohttp import web

from trainyard.gateway.batches import Batches, Workers
from trainyard.gateway.suspects import REFUSED_SECONDS, GuiltyError, Suspects
from trainyard.gateway.tokens import Tokens
from trainyard.gateway.upstream import Response, Upstream
from trainyard.http.batch import Reply, Sent, read_replies, write_requests

log = logging.getLogger(__name__)

AGAIN = {"Retry-After": "1"}


def failure(status: int, error: str, headers: Mapping[str, str] | None = None, code: str = "") -> Reply:
    """A reply that says what is wrong."""
    return Reply(status, json.dumps({"error": error}).encode(), headers=headers or {}, code=code)


FAILED = failure(500, "the server failed on this request")


def headers_of(reply: Reply) -> dict[str, str]:
    """What the head of a reply has in any case."""
    return {"Content-Type": reply.content_type, "Server": "trainyard", **reply.headers}


def respond(reply: Reply) -> web.Response:
    """A reply, as aiohttp sends it: one can't be sent twice."""
    return web.Response(body=reply.body, status=reply.status, headers=headers_of(reply))


class Proxy:
    """TorchServe's inference port, over connections that stay open.

    Args:
        url: Gives its address, which is known once TorchServe has been started.
        keys: TorchServe's own key file.
        seconds: Limit of one request in all, from its head on: to a model that died for good, TorchServe answers never.
        workers: Those of each model, by its name.
    """

    def __init__(self, url: Callable[[], str], keys: Tokens, seconds: float, workers: Mapping[str, Workers]) -> None:
        self._url, self._keys, self._seconds = url, keys, seconds
        self._upstream = Upstream()
        self._models = {
            name: Suspects(name, Batches(partial(self._send, name, own), own)) for name, own in workers.items()
        }

    def close(self) -> None:
        """Closes the connections."""
        self._upstream.close()

    async def predict(self, model: str, request: Sent, since: float | None = None) -> Reply:
        """Has a model answer a request. Its worker gets the body's bytes as they are.

        Args:
            model: Its name.
            request: As it came in.
            since: When it did, by the loop's clock; by default now.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at((loop.time() if since is None else since) + self._seconds):
                reply = await self._models[model].ask(request)
        except GuiltyError:
            why = f"this request ended workers of {model}: it isn't taken for {REFUSED_SECONDS:g} s"
            return failure(422, why, code="ends_workers")
        except TimeoutError:
            return failure(504, f"no answer within {self._seconds:g} s")
        ended = "workers ended while they had this request and others; try again"
        return reply or failure(503, ended, AGAIN, "worker_lost")

    async def _send(self, model: str, workers: Workers, requests: Sequence[Sent]) -> Sequence[Reply | None]:
        """Has TorchServe answer a batch. A worker that ended with it gave no reply."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._post(model, requests)
                if _is_stale_key(response):  # it was renewed between our look at the file and TorchServe's
                    response = await self._post(model, requests)
        except (OSError, TimeoutError) as error:
            log.debug("TorchServe: %r", error)
            reply: Reply | None = failure(503, "the model's server can't be reached; try again", AGAIN, "unreachable")
            return [reply] * len(requests)
        if response.status == 200:
            return read_replies(response.body)
        if not _is_lost(response):
            reply = _in_plain_words(response, model)
        # TorchServe says the same of a worker that took too long: but no other has had a batch for this time.
        elif loop.time() - began >= workers.seconds:
            late = f"the worker gave no answer within {workers.seconds:g} s, and was ended"
            reply = failure(504, late, code="worker_stuck")
        else:
            reply = None
        return [reply] * len(requests)

    async def _post(self, model: str, requests: Sequence[Sent]) -> Response:
        headers = {
            "Authorization": f"Bearer {self._keys.any()}",
            "Content-Type": "application/octet-stream",  # what TorchServe leaves alone
        }
        return await self._upstream.post(self._url(), f"/predictions/{model}", headers, write_requests(requests))


def _is_stale_key(response: Response) -> bool:
    return response.status == 400 and b'"InvalidKeyException"' in response.body


def _is_lost(response: Response) -> bool:
    return response.status in (500, 507) and (b"Worker died" in response.body or b"scaled down" in response.body)


def _in_plain_words(response: Response, model: str) -> Reply:
    """What TorchServe says of its own accord, in our words."""
    match response.status:
        case 404:
            return failure(404, f"there is no model {model}")
        case 413:
            return failure(413, "the request is too large")
        case 503 if b"has no worker" in response.body:
            # TorchServe's words for a full queue, too.
            return failure(503, "too many requests are waiting for this model; try again", AGAIN, "queue_full")
        case 507:
            return failure(503, "the worker is out of memory; try again", AGAIN, "worker_memory")
        case 400 if _is_stale_key(response):
            return failure(503, "TorchServe refuses its own key; try again", AGAIN)
    excerpt = " ".join(response.body[:300].decode(errors="replace").split())
    log.warning("TorchServe answered %d to a request of %s: %s", response.status, model, excerpt)
    return failure(500, "the model failed on this request")
