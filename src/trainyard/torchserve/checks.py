"""Asks the served models their golden requests: all before the server says that it is ready, one at each probe."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainyard.base.errors import TrainyardError
from trainyard.gateway.gateway import FIRST, Gateway
from trainyard.gateway.proxy import Proxy
from trainyard.http.batch import Sent
from trainyard.http.request_types import JSON
from trainyard.torchserve.store import Served

if TYPE_CHECKING:
    import aiohttp

AT_ONCE = 8
"""Golden requests on their way, so that they are batched as those of clients will be."""
SECONDS = 120.0
"""Limit of a request."""


class WrongAnswerError(TrainyardError):
    """A served model answers a golden request wrong."""


async def check_all(models: Sequence[Served], url: str, token: str, gateway: Gateway) -> None:
    """Sends each model's golden requests as a client would, through the gateway.

    Raises:
        WrongAnswerError: an answer isn't right.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {token}", "Content-Type": JSON, FIRST: gateway.first}
    limit = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=False) as session:
        for model in models:
            requests = [(golden.body, golden) for golden in model.goldens]
            answers = await asyncio.gather(*(_ask(session, limit, url, model.name, body) for body, _ in requests))
            for position, (answer, golden) in enumerate(zip(answers, model.goldens, strict=True)):
                if complaint := golden.complaint(answer):
                    raise WrongAnswerError(f"{model.name} answers golden request {position} wrong: {complaint}")


async def _ask(session: aiohttp.ClientSession, limit: asyncio.Semaphore, url: str, model: str, body: bytes) -> bytes:
    async with limit, session.post(f"{url}/v2/models/{model}/infer", data=body) as response:
        return await response.read()


class Prober:
    """Asks each model one golden request at a time, in turn.

    A model whose bundle carries none is taken to be right.
    """

    def __init__(self, models: Sequence[Served], proxy: Proxy) -> None:
        self._proxy = proxy
        self._turns = {model.name: itertools.cycle(model.goldens) for model in models if model.goldens}

    async def __call__(self) -> str | None:
        """What is wrong, if anything."""
        for model, goldens in self._turns.items():
            golden = next(goldens)
            reply = await self._proxy.predict(model, Sent(JSON, golden.body))
            if complaint := golden.complaint(reply.body):
                return f"{model}: {complaint}"
        return None
