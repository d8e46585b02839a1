"""Asks a server for predictions: ``Client``, and ``AsyncClient`` with the same methods.

    with Client("http://localhost:8080", token_file="tokens.json") as client:
        [answer] = client.predict("digits", [Path("photo.png")])
        print(answer.label, answer.probability, answer.deployed.format)

A request that fails in passing is sent again, as ``trainyard.client.retry`` says.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Self, TypeVar

import httpx2

from trainyard.base.errors import ItemError
from trainyard.client.access import bearer, check_url, is_loopback
from trainyard.client.calls import Call, Request, path_of, split
from trainyard.client.replies import REFUSALS, Answer, ServedModel, is_ready, model_of, names_of, read, read_answers
from trainyard.client.retry import Reply, Retries
from trainyard.preprocess.base import Item

T = TypeVar("T")

DEFAULTS = Retries()
CONCURRENCY = 8
CONNECT_SECONDS = 30.0
FAILURES = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError, httpx2.DecodingError)
"""What a network does to a request; any other error is a mistake of ours."""


class AsyncClient:
    """Asks a server with several requests at once.

    Args:
        url: Of the server, as in ``http://localhost:8080``.
        token: For predictions, if the server wants one.
        token_file: Holds the token: the file that ``trainyard serve`` wrote, or one with nothing else in it.
        timeout: Seconds that one attempt of a request may take.
        retries: Attempts after the first.
        deadline: Seconds that all attempts of a request may take. Many items are many requests.
        concurrency: Requests that are on their way at once, over all calls of this client.

    Raises:
        UsageError: ``url`` isn't that of a server, or there is no token in the file.
    """

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
        self.url = check_url(url)
        self.retries = Retries(timeout, deadline, retries)
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._headers = bearer(token, Path(token_file) if token_file is not None else None)
        self.open()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def open(self) -> None:
        """Makes a pool of connections, without those that there were."""
        # A proxy of the surroundings doesn't know this machine's own addresses.
        outside = not is_loopback(self.url)
        self._http = httpx2.AsyncClient(base_url=self.url, headers=self._headers, trust_env=outside)

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
                    answers[number] = await self.answer(call, model, version)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [answer for number in sorted(answers) for answer in answers[number]]

    async def answer(self, call: Call, model: str, version: str | None) -> list[Answer | ItemError]:
        """The answers to a call's items; what is refused as a whole is asked about item by item."""
        sent = call.sent
        answers: list[Answer | ItemError] = []
        if sent:
            reply = await self._ask(call.request(model, version))
            if len(sent) > 1 and reply.status in REFUSALS:
                alone = [await self.answer(Call([one], call.top_k), model, version) for one in call.instances]
                return [answer for [answer] in alone]
            answers = read_answers(reply, len(sent), self.url)
        rest = iter(answers)
        return [one if isinstance(one, ItemError) else next(rest) for one in call.instances]

    async def models(self) -> list[str]:
        """As ``Client.models``."""
        return read(await self._ask(Request(path_of("v2", "models"))), self.url, names_of)

    async def model(self, name: str) -> ServedModel:
        """As ``Client.model``."""
        return read(await self._ask(Request(path_of("v2", "models", name))), self.url, model_of)

    async def ready(self) -> bool:
        """As ``Client.ready``."""
        return is_ready(await self._attempt(Request("v2/health/ready"), self.retries.timeout), self.url)

    async def _ask(self, request: Request) -> Reply:
        return await self.retries.insist(partial(self._attempt, request))

    async def _attempt(self, request: Request, seconds: float) -> Reply:
        method = "GET" if request.body is None else "POST"
        timeout = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(
                    method, request.path, content=request.body, headers=request.headers, timeout=timeout
                )
            return Reply(response.status_code, response.content, response.headers.get("Retry-After"))
        except httpx2.ConnectTimeout:
            return Reply(None, b"no connection in %.3g s" % min(seconds, CONNECT_SECONDS))
        except (httpx2.TimeoutException, TimeoutError):
            return Reply(None, b"it took more than %.3g s" % seconds)
        except FAILURES as error:
            return Reply(None, (str(error).rstrip(".") or type(error).__name__).encode())


class Client:
    """Asks a server, one request after the other; threads may share it. Its arguments are those of ``AsyncClient``.

    It is an ``AsyncClient`` whose loop runs in a thread of its own, so that it works where a loop runs already, as in a
    notebook. The thread keeps no process from its end, and ends with the client.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        token_file: Path | str | None = None,
        timeout: float = DEFAULTS.timeout,
        retries: int = DEFAULTS.retries,
        deadline: float = DEFAULTS.deadline,
    ) -> None:
        self._async = AsyncClient(url, token, token_file, timeout, retries, deadline)
        self.url = self._async.url
        self._starting = Lock()
        self._thread: Thread | None = None

    @property
    def retries(self) -> Retries:
        """How patient it is."""
        return self._async.retries

    @retries.setter
    def retries(self, retries: Retries) -> None:
        self._async.retries = retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._thread is not None and self._thread.is_alive():
            self._stop()
            self._thread.join()

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
        calls = split(items, top_k)  # in the caller's thread, in which a cursor of a database may have to stay
        return [answer for call in calls for answer in self._run(self._async.answer(call, model, version))]

    def models(self) -> list[str]:
        """Names of the models that the server has.

        Raises:
            ServerError: it gave no answer.
        """
        return self._run(self._async.models())

    def model(self, name: str) -> ServedModel:
        """What the server says of a model.

        Raises:
            ServerError: it gave no answer, or has no such model.
        """
        return self._run(self._async.model(name))

    def ready(self) -> bool:
        """Whether the server can answer, asked once: not if it is starting, ending or can't be reached.

        Raises:
            ServerError: it says neither.
        """
        return self._run(self._async.ready())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Ctrl-C gives the request up

    def _start(self) -> None:
        if self._thread is not None:  # it was closed, or a fork left the thread behind
            self._async.open()
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        self._thread = Thread(target=_turn, args=(runner, self._async), name="trainyard-client", daemon=True)
        self._thread.start()


def _turn(runner: asyncio.Runner, client: AsyncClient) -> None:
    """Runs a loop until it is stopped; who still waits for something in it then hears that it was cancelled."""
    with runner:
        runner.get_loop().run_forever()
        runner.run(client.close())
