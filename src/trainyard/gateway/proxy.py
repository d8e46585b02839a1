"""Passes requests on to TorchServe, and turns what it answers when something is wrong into plain errors."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from trainyard.gateway.access_log import CODE
from trainyard.gateway.suspects import REFUSED_SECONDS, GuiltyError, Suspects
from trainyard.gateway.tokens import Tokens
from trainyard.gateway.upstream import Upstream
from trainyard.http.facts import HEADER, Facts
from trainyard.http.request_types import HEADER_LENGTH
from trainyard.http.requests import ORIGINAL_TYPE

log = logging.getLogger(__name__)

AGAIN = {"Retry-After": "1"}
JSON = "application/json"
FACTS_NAME, LENGTH_NAME = HEADER.lower(), HEADER_LENGTH.lower()


@dataclass(frozen=True)
class Answer:
    """A response to a client.

    Attributes:
        code: Of a failure that its status doesn't tell from others, a word for metrics.
        facts: What the worker says of the request, not for the client.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    facts: Facts | None = None

    def response(self) -> web.Response:
        """It, as aiohttp sends it: one can't be sent twice."""
        headers = {"Content-Type": self.content_type, "Server": "trainyard", **self.headers}
        response = web.Response(body=self.body, status=self.status, headers=headers)
        response[CODE] = self.code
        return response


def failure(status: int, error: str, headers: dict[str, str] | None = None, code: str = "") -> Answer:
    """An answer that says what is wrong."""
    return Answer(status, json.dumps({"error": error}).encode(), JSON, headers or {}, code)


class Proxy:
    """TorchServe's inference port, over connections that stay open.

    Args:
        url: Gives its address, which is known once TorchServe has been started.
        keys: TorchServe's own key file.
        seconds: Limit of one request in all, from its head on: to a model that died for good, TorchServe answers never.
        worker_seconds: For each model, the time after which TorchServe ends a worker that doesn't answer.
    """

    def __init__(
        self, url: Callable[[], str], keys: Tokens, seconds: float, worker_seconds: Mapping[str, float]
    ) -> None:
        self._url, self._keys, self._seconds, self._worker_seconds = url, keys, seconds, worker_seconds
        self._suspects = Suspects()
        self._upstream = Upstream()

    def close(self) -> None:
        """Closes the connections."""
        self._upstream.close()

    async def predict(
        self, model: str, version: str | None, body: bytes, content_type: str, since: float | None = None
    ) -> Answer:
        """Has a model answer a request. Its worker gets the body's bytes as they are.

        Args:
            model: Its name.
            version: Of the model; by default the only one.
            body: Of the request.
            content_type: Of the body.
            since: When the request came in, by the loop's clock; by default now.
        """
        loop = asyncio.get_running_loop()
        path = f"/predictions/{model}/{version}" if version else f"/predictions/{model}"
        limit = self._worker_seconds[model]

        async def send() -> Answer | None:
            began = loop.time()
            answer = await self._post(path, body, content_type)
            if _is_stale_key(answer):  # it was renewed between our look at the file and TorchServe's
                answer = await self._post(path, body, content_type)
            if not _is_lost(answer):
                return _plain(answer, model, version)
            # TorchServe says the same of a worker that took too long: but no other has had a request for this time.
            is_late = loop.time() - began >= limit
            late = f"the worker gave no answer within {limit:g} s, and was ended"
            return failure(504, late, code="worker_stuck") if is_late else None

        try:
            async with asyncio.timeout_at((loop.time() if since is None else since) + self._seconds):
                answer = await self._suspects.ask(model, body, send)
        except GuiltyError:
            why = f"this request ended workers of {model}: it isn't taken for {REFUSED_SECONDS:g} s"
            return failure(422, why, code="ends_workers")
        except TimeoutError:
            return failure(504, f"no answer within {self._seconds:g} s")
        except OSError as error:
            log.debug("TorchServe: %r", error)
            return failure(503, "the model's server can't be reached; try again", AGAIN, "unreachable")
        ended = "workers ended while they had this request and others; try again"
        return answer or failure(503, ended, AGAIN, "worker_lost")

    async def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        headers = {
            "Authorization": f"Bearer {self._keys.any()}",
            # TorchServe decodes JSON and forms laxly, so that it is told nothing of them.
            "Content-Type": "application/octet-stream",
            ORIGINAL_TYPE: content_type,
        }
        status, sent, content = await self._upstream.post(self._url(), path, headers, body)
        facts = Facts.read(sent.get(FACTS_NAME))
        passed_on = {HEADER_LENGTH: sent[LENGTH_NAME]} if LENGTH_NAME in sent else {}
        return Answer(status, content, sent.get("content-type", JSON), passed_on, facts=facts)


def _is_stale_key(answer: Answer) -> bool:
    return answer.status == 400 and b'"InvalidKeyException"' in answer.body


def _is_lost(answer: Answer) -> bool:
    return answer.status in (500, 507) and (b"Worker died" in answer.body or b"scaled down" in answer.body)


def _plain(answer: Answer, model: str, version: str | None) -> Answer:
    """What the handler answered, as it is; what TorchServe says of its own accord, in our words."""
    match answer.status:
        case 404:
            return failure(404, f"there is no model {model}" + (f" of version {version}" if version else ""))
        case 413 if not answer.body.startswith(b'{"error":'):  # by which ours begin
            return failure(413, "the request is too large")
        case 503 if b"has no worker" in answer.body:
            # TorchServe's words for a full queue, too.
            return failure(503, "too many requests are waiting for this model; try again", AGAIN, "queue_full")
        case 507:
            return failure(503, "the worker is out of memory; try again", AGAIN, "worker_memory")
        case status if status >= 500:
            log.warning("TorchServe answered %d to a request of %s: %s", status, model, _excerpt(answer.body))
            return failure(500, "the model failed on this request")
        case 400 if _is_stale_key(answer):
            return failure(503, "TorchServe refuses its own key; try again", AGAIN)
    return answer


def _excerpt(body: bytes) -> str:
    return " ".join(body[:300].decode(errors="replace").split())
