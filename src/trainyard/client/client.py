"""Asks a server for predictions: ``Client``, and ``AsyncClient`` with the same methods.

    with Client("http://localhost:8080", token_file="tokens.json") as client:
        [answer] = client.predict("digits", [Path("photo.png")])
        print(answer.label, answer.probability, answer.deployed.format)

A request that fails in passing is sent again, as ``trainyard.client.retry`` says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Self, TypeVar

import httpx2

from trainyard.base.errors import ItemError
from trainyard.client.access import bearer, check_url, is_loopback
from trainyard.client.calls import MODELS, READY, Call, Request, model_request, split
from trainyard.client.replies import (
    Answer,
    ServedModel,
    is_ready,
    is_refused_whole,
    read_answers,
    read_model,
    read_names,
)
from trainyard.client.retry import Lost, Outcome, Reply, Retries, Send
from trainyard.preprocess.base import Item

DEFAULTS = Retries()
CONCURRENCY = 8
FAILURES = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError, httpx2.DecodingError)
"""What a network does to a request; any other error is a mistake of ours."""

Http = TypeVar("Http", httpx2.Client, httpx2.AsyncClient)


class _Caller(Generic[Http]):
    """What both clients have in common; their arguments.

    Args:
        url: Of the server, as in ``http://localhost:8080``.
        token: For predictions, if the server wants one.
        token_file: Holds the token: the file that ``trainyard serve`` wrote, or one with nothing else in it.
        timeout: Seconds that one attempt of a request may take.
        retries: Attempts after the first.
        deadline: Seconds that all attempts of a request may take. Many items are many requests.

    Raises:
        UsageError: ``url`` isn't that of a server, or there is no token in the file.
    """

    _library: type[Http]

    def __init__(
        self,
        url: str,
        token: str | None = None,
        token_file: Path | str | None = None,
        timeout: float = DEFAULTS.timeout,
        retries: int = DEFAULTS.retries,
        deadline: float = DEFAULTS.deadline,
    ) -> None:
        self.url = check_url(url)
        self.retries = Retries(timeout, deadline, retries)
        headers = bearer(token, Path(token_file) if token_file is not None else None)
        # A proxy of the surroundings doesn't know this machine's own addresses.
        self._http: Http = self._library(base_url=self.url, headers=headers, trust_env=not is_loopback(url))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class Client(_Caller[httpx2.Client]):
    """Asks a server, one request after the other; threads may share it. For its arguments see ``_Caller``."""

    _library = httpx2.Client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def predict(
        self, model: str, items: Iterable[Item], top_k: int = 3, version: str | None = None
    ) -> list[Answer | ItemError]:
        """Answers each item, in order; one that can't be read gets its error, and its neighbours their answers.

        Args:
            model: Its name on the server.
            items: Images (bytes or paths), texts or pairs of texts, any number.
            top_k: Classes to tell of each item.
            version: Of the model; by default the server's.

        Raises:
            ServerError: the server gave no answers; its subclasses say why.
            UsageError: ``top_k`` is below 1.
        """
        return [answer for call in split(items, top_k) for answer in self._answer(call, model, version)]

    def models(self) -> list[str]:
        """Names of the models that the server has.

        Raises:
            ServerError: it gave no answer.
        """
        return read_names(self._ask(MODELS), self.url)

    def model(self, name: str) -> ServedModel:
        """What the server says of a model.

        Raises:
            ServerError: it gave no answer, or has no such model.
        """
        return read_model(self._ask(model_request(name)), self.url)

    def ready(self) -> bool:
        """Whether the server can answer, asked once: not if it is starting, ending or can't be reached.

        Raises:
            ServerError: it says neither.
        """
        return is_ready(self._attempt(READY, self.retries.timeout), self.url)

    def _answer(self, call: Call, model: str, version: str | None) -> list[Answer | ItemError]:
        if not call.sent:
            return call.fill([])
        outcome = self._ask(call.request(model, version))
        if is_refused_whole(outcome, call):
            return [answer for one in call.alone() for answer in self._answer(one, model, version)]
        return read_answers(outcome, call, self.url)

    def _ask(self, request: Request) -> Outcome:
        steps = self.retries.steps()
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                outcome = self._attempt(request, step.seconds)
            else:
                time.sleep(step.seconds)
                outcome = None

    def _attempt(self, request: Request, seconds: float) -> Outcome:
        end = time.monotonic() + seconds
        try:
            with self._http.stream(
                request.method, request.path, content=request.body, headers=request.headers, timeout=seconds
            ) as response:
                body = b"".join(_until(end, response.iter_bytes()))
                return Reply(response.status_code, body, response.headers.get("Retry-After"))
        except (httpx2.TimeoutException, TimeoutError):
            return _late(seconds)
        except FAILURES as error:
            return _failed(error)


class AsyncClient(_Caller[httpx2.AsyncClient]):
    """Asks a server with several requests at once. For its arguments see ``_Caller``.

    Args:
        concurrency: Requests that are on their way at once, over all calls of this client.
    """

    _library = httpx2.AsyncClient

    def __init__(
        self,
        url: str,
        token: str | None = None,
        token_file: Path | str | None = None,
        timeout: float = DEFAULTS.timeout,
        retries: int = DEFAULTS.retries,
        deadline: float = DEFAULTS.deadline,
        concurrency: int = CONCURRENCY,
    ) -> None:
        super().__init__(url, token, token_file, timeout, retries, deadline)
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def predict(
        self, model: str, items: Iterable[Item], top_k: int = 3, version: str | None = None
    ) -> list[Answer | ItemError]:
        """As ``Client.predict``. After an error the requests that are on their way are given up."""
        calls = enumerate(split(items, top_k))
        taking = asyncio.Lock()
        answers: dict[int, list[Answer | ItemError]] = {}

        async def work() -> None:
            while True:
                async with self._slots:
                    async with taking:
                        # In a thread: it reads files. And with a slot: what waits would fill the memory.
                        taken = await asyncio.to_thread(next, calls, None)
                    if taken is None:
                        return
                    number, call = taken
                    answers[number] = await self._answer(call, model, version)

        await _together([work() for _ in range(self.concurrency)])
        return [answer for number in sorted(answers) for answer in answers[number]]

    async def models(self) -> list[str]:
        """As ``Client.models``."""
        return read_names(await self._ask(MODELS), self.url)

    async def model(self, name: str) -> ServedModel:
        """As ``Client.model``."""
        return read_model(await self._ask(model_request(name)), self.url)

    async def ready(self) -> bool:
        """As ``Client.ready``."""
        return is_ready(await self._attempt(READY, self.retries.timeout), self.url)

    async def _answer(self, call: Call, model: str, version: str | None) -> list[Answer | ItemError]:
        if not call.sent:
            return call.fill([])
        outcome = await self._ask(call.request(model, version))
        if is_refused_whole(outcome, call):
            return [answer for one in call.alone() for answer in await self._answer(one, model, version)]
        return read_answers(outcome, call, self.url)

    async def _ask(self, request: Request) -> Outcome:
        steps = self.retries.steps()
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            if isinstance(step, Send):
                outcome = await self._attempt(request, step.seconds)
            else:
                await asyncio.sleep(step.seconds)
                outcome = None

    async def _attempt(self, request: Request, seconds: float) -> Outcome:
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(
                    request.method, request.path, content=request.body, headers=request.headers, timeout=seconds
                )
                return Reply(response.status_code, response.content, response.headers.get("Retry-After"))
        except (httpx2.TimeoutException, TimeoutError):
            return _late(seconds)
        except FAILURES as error:
            return _failed(error)


def _until(end: float, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Parts of a reply; a server that sends one now and then forever is late, too."""
    for part in parts:
        yield part
        if time.monotonic() > end:
            raise TimeoutError


def _late(seconds: float) -> Lost:
    return Lost(f"it took more than {seconds:.3g} s")


def _failed(error: httpx2.RequestError) -> Lost:
    return Lost(str(error).rstrip(".") or type(error).__name__)


async def _together(tasks: Sequence[Coroutine[None, None, None]]) -> None:
    """Runs tasks at once; the first error ends all and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
