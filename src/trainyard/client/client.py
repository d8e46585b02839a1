"""Asks a server for predictions: ``Client``, and ``AsyncClient`` with the same methods.

    with Client("http://localhost:8080", token_file="tokens.json") as client:
        [answer] = client.predict("digits", [Path("photo.png")])
        print(answer.label, answer.probability, answer.deployed.format)

What fails in passing is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import weakref
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import random
from threading import Lock, Thread
from time import monotonic
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2

from trainyard.base.errors import ItemError, UsageError
from trainyard.client.access import bearer, check_url
from trainyard.client.messages import (
    PASSING,
    REFUSALS,
    Answer,
    Call,
    Reply,
    Request,
    ServedModel,
    model_of,
    names_of,
    split,
)
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import answer, read_inputs
from trainyard.preprocess.base import Item

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0
FIRST_PAUSE, MOST_PAUSE, MOST_ASKED = 0.2, 10.0, 30.0
"""Seconds between attempts: at most, before the second; at most, ever; and up to which a server's wish counts."""
FAILURES = (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError, httpx2.DecodingError)
"""What a network does to a request; any other error is a mistake of ours."""
DIRECT = dict.fromkeys(("all://localhost", "all://127.0.0.0/8", "all://[::1]"))
"""Hosts for which no proxy is asked, whatever the surroundings say: it doesn't know this machine's own addresses."""


@dataclass(eq=False)
class _Asker:
    """What both clients have and do."""

    url: str
    token: InitVar[str | None] = None
    token_file: InitVar[Path | str | None] = None
    timeout: float = 65.0
    retries: int = 4
    deadline: float = 90.0

    def __post_init__(self, token: str | None, token_file: Path | str | None) -> None:
        self.url = check_url(self.url)
        self._open(bearer(token, token_file))

    def _open(self, headers: Mapping[str, str]) -> None:
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        self._http = httpx2.AsyncClient(base_url=self.url, headers=headers, mounts=DIRECT, timeout=timeout)

    async def _models(self) -> list[str]:
        """As ``Client.models``."""
        return (await self._ask(Request("v2/models"))).read(self.url, names_of)

    async def _model(self, name: str) -> ServedModel:
        """As ``Client.model``."""
        return (await self._ask(Request(f"v2/models/{quote(name, safe='')}"))).read(self.url, model_of)

    async def _ready(self) -> bool:
        """As ``Client.ready``."""
        reply = await self._attempt(Request("v2/health/ready"), self.timeout)
        if reply.status not in (200, 504, *PASSING):
            raise reply.error(self.url)
        return reply.status == 200

    async def _answer(self, call: Call, model: str, version: str | None) -> list[Answer | ItemError]:
        """The answers to a call's items; what is refused as a whole is asked about item by item."""
        if not call.sent:
            return call.answers({"predictions": []})
        reply = await self._ask(call.request(model, version))
        if reply.status not in REFUSALS:
            return reply.read(self.url, call.answers)
        if len(call.instances) == 1:
            return [ItemError(reply.reason)]
        alone = [await self._answer(Call([one], call.top_k), model, version) for one in call.instances]
        return [answer for [answer] in alone]

    async def _ask(self, request: Request) -> Reply:
        """Makes attempts until one isn't lost or refused in passing; the last one's reply.

        A prediction changes nothing on the server and has the same answer every time, so that sending one twice does no
        harm, also where the first may have arrived. What was too much for the server would be once more.

        The pause before attempt n is drawn evenly from 0 to ``FIRST_PAUSE`` x 2^n seconds, at most ``MOST_PAUSE``:
        "full jitter", by which many clients of a server that comes back don't come back at once (M. Brooker,
        "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). What ``Retry-After`` asks for comes on top.
        """
        end = monotonic() + self.deadline
        for number in itertools.count():
            reply = await self._attempt(request, min(self.timeout, end - monotonic()))
            asked = min(asked_seconds(reply.retry_after), MOST_ASKED)
            pause = asked + random() * min(MOST_PAUSE, FIRST_PAUSE * 2.0**number)
            # Who would wake up after the deadline needn't sleep.
            if reply.status not in PASSING or number == self.retries or monotonic() + pause >= end:
                break
            log.info("%s (%s); trying again in %.1f s", reply.status or "no answer", reply.reason, pause)
            await asyncio.sleep(pause)
        return reply

    async def _attempt(self, request: Request, seconds: float) -> Reply:
        method = "GET" if request.body is None else "POST"
        try:
            async with asyncio.timeout(seconds):
                response = await self._http.request(method, request.path, content=request.body, headers=request.headers)
            said = response.content or response.reason_phrase.encode()
            return Reply(response.status_code, said, response.headers.get("Retry-After"))
        except httpx2.ConnectTimeout:
            return Reply(None, b"no connection in %.3g s" % CONNECT_SECONDS)
        except TimeoutError:
            return Reply(None, b"it took more than %.3g s" % seconds)
        except FAILURES as error:
            return Reply(None, (str(error).rstrip(".") or type(error).__name__).encode())


@dataclass(eq=False)
class AsyncClient(_Asker):
    """Asks a server with several requests at once.

    Its arguments are those of ``Client``, and ``concurrency``: requests that are on their way at once, over all calls.
    """

    concurrency: int = 8

    def __post_init__(self, token: str | None, token_file: Path | str | None) -> None:
        super().__post_init__(token, token_file)
        self._slots = asyncio.Semaphore(self.concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    models, model, ready = _Asker._models, _Asker._model, _Asker._ready

    async def predict(
        self, model: str, items: Iterable[Item], top_k: int = 3, version: str | None = None
    ) -> list[Answer | ItemError]:
        """As ``Client.predict``. After an error the requests that are on their way are given up."""
        calls = split(items, top_k)
        tasks: list[asyncio.Task[list[Answer | ItemError]]] = []

        async def work() -> list[Answer | ItemError]:
            async with self._slots:
                # In a thread: it reads files. And with a slot: what waits would fill the memory.
                call = await asyncio.to_thread(next, calls, None)
                if call is None:
                    return []
                tasks.append(group.create_task(work()))
                return await self._answer(call, model, version)

        try:
            async with asyncio.TaskGroup() as group:
                tasks.append(group.create_task(work()))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [answer for task in tasks for answer in task.result()]


@dataclass(eq=False)
class Client(_Asker):
    """Asks a server, one request after the other; threads may share it.

    Its loop runs in a thread of its own, so that it works where a loop runs already, as in a notebook. The thread keeps
    no process from its end, and ends with the client.

    Args:
        url: Of the server, as in ``http://localhost:8080``.
        token: For predictions, if the server wants one.
        token_file: Holds the token: the file that ``trainyard serve`` wrote, or one with nothing else in it.
        timeout: Seconds that one attempt may take: more than a server's own 60, whose word on it isn't to be missed.
        retries: Attempts after the first.
        deadline: Seconds that all attempts of a request may take. Many items are many requests.

    Raises:
        UsageError: ``url`` isn't that of a server, or there is no token in the file.
        ServerError: of all methods: the server gave no answer. Its subclasses say why.
    """

    _starting: Lock = field(default_factory=Lock, init=False, repr=False)
    _thread: Thread = field(default_factory=Thread, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._thread.is_alive():
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
            UsageError: ``top_k`` is below 1.
        """
        calls = split(items, top_k)  # in the caller's thread, in which a cursor of a database may have to stay
        return [answer for call in calls for answer in self._run(self._answer(call, model, version))]

    def models(self) -> list[str]:
        """Names of the models that the server has."""
        return self._run(self._models())

    def model(self, name: str) -> ServedModel:
        """What the server says of a model."""
        return self._run(self._model(name))

    def ready(self) -> bool:
        """Whether the server can answer, asked once: not if it is starting, ending or can't be reached."""
        return self._run(self._ready())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if not self._thread.is_alive():
                self._start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Ctrl-C gives the request up

    def _start(self) -> None:
        if self._thread.ident is not None:  # it was closed, or a fork left the thread behind
            self._open(self._http.headers)
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        self._thread = Thread(target=_turn, args=(runner, self._http), name="trainyard-client", daemon=True)
        self._thread.start()


def _turn(runner: asyncio.Runner, http: httpx2.AsyncClient) -> None:
    """Runs a loop until it is stopped; who still waits for something in it then hears that it was cancelled."""
    with runner:
        runner.get_loop().run_forever()
        runner.run(http.aclose())


def asked_seconds(header: str | None) -> float:
    """The pause that ``Retry-After`` asks for, in seconds or as a date (RFC 9110, 10.2.3); 0 if it isn't either."""
    given = (header or "0").strip()
    with contextlib.suppress(ValueError, OverflowError):
        if given.isdecimal():
            return float(given)
        moment = parsedate_to_datetime(given)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return 0.0


def ask(
    url: str, token_file: Path | None, model: str | None, words: Sequence[str], top_k: int
) -> list[tuple[str, Prediction | ItemError]]:
    """Has a server answer what ``trainyard predict`` is given; the server says whether its model reads images or texts.

    Args:
        url: Of the server.
        token_file: Holds its token.
        model: Which of its models; may be left out if there is one.
        words: Files, folders, tables or texts.
        top_k: Classes to tell of each item.

    Raises:
        UsageError: a word, the URL or the token file is wrong, or the server has several models.
        ServerError: the server gave no answers.
    """
    client = AsyncClient(url, token_file=token_file)
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        stack.callback(lambda: runner.run(client.close()))
        names = runner.run(client.models()) if model is None else [model]
        if len(names) != 1:
            raise UsageError(f"{client.url} has the models {', '.join(names) or 'none'}: choose one by --model")
        served = runner.run(client.model(names[0]))
        inputs = list(read_inputs(words, served.reads))  # while no loop runs, so that Ctrl-C ends it
        return answer(inputs, lambda items: runner.run(client.predict(served.name, items, top_k)))
