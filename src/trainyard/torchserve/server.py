"""Brings TorchServe up behind the gateway, as often as it ends, and takes all down in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.artifacts.drift import DriftReference
from trainyard.base.errors import EXIT_SIGTERM
from trainyard.base.signals import exit_on_sigterm
from trainyard.client.access import prepare_token_file
from trainyard.gateway.access_log import LogFormat, write_log_as
from trainyard.gateway.batches import Workers
from trainyard.gateway.bodies import Limits
from trainyard.gateway.exporter import Exporter
from trainyard.gateway.gateway import Gateway
from trainyard.gateway.health import Health, Phase
from trainyard.gateway.metrics import Metrics, Watched
from trainyard.gateway.proxy import Proxy
from trainyard.gateway.tokens import Tokens, read_tokens
from trainyard.torchserve.golden import Checks, WrongAnswerError
from trainyard.torchserve.java import find_java
from trainyard.torchserve.ports import allow_many_files, listen, url_of
from trainyard.torchserve.process import Backend, BackendError, open_run_directory, torchserve_home
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.store import Served, collect

log = logging.getLogger(__name__)

MOST_FAILURES, FAILURE_SECONDS = 6, 600.0
"""So often in such a time TorchServe ends before the server does, too: a new start would help no more."""
HEADER = r"""sed -n '/"inference"/,/}/ s/.*"key": "\([^"]*\)".*/Authorization: Bearer \1/p'"""
"""Makes a header of a token file, which curl reads as a file: on a command line others could see it."""
PLAIN_HEADER = """awk 'NR == 1 {print "Authorization: Bearer " $NF}'"""
# By what a model accepts and not asked of its preprocessor, which knows nothing of curl.
EXAMPLES = {
    "image": '-H "Content-Type: image/jpeg" --data-binary @IMAGE',
    "text": '-H "Content-Type: text/plain" --data-raw "TEXT"',
    "pair": """-H "Content-Type: application/json" --data-raw '{"text": ["ONE", "OTHER"]}'""",
}


@dataclass(frozen=True)
class Options:
    """What ``trainyard serve`` is told, as its help has it.

    Attributes:
        models: ``[NAME=]RUN`` each.
        chosen: How they are served, where it isn't left to the archive or to this machine.
        expect: Digests of which each model must have one.
        token_file: File with the tokens that clients show; by default a new one in the private folder.
        as_json: Says that it is ready as a line of JSON on stdout.
    """

    models: Sequence[str]
    chosen: Settings = field(default_factory=Settings)
    expect: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    token_file: Path | None = None
    lame_duck: float = 0.0
    drain_seconds: float = 30.0
    request_seconds: float = 60.0
    limits: Limits = field(default_factory=Limits)
    origins: Sequence[str] = ()
    log_format: LogFormat = "text"
    as_json: bool = False


def serve(options: Options) -> int:
    """Serves until it is told to end; returns the exit code: 143 after SIGTERM, 0 after Ctrl-C.

    Raises:
        UsageError: a model can't be served, the address can't be listened on, or there is no Java.
        TrainyardError: a model doesn't load or answers wrong, or TorchServe ended.
    """
    exit_on_sigterm()
    write_log_as(options.log_format)
    allow_many_files()
    torchserve_home()
    java = find_java()
    with (
        listen(options.host, options.port) as listener,
        listen(options.metrics_host, options.metrics_port, "--metrics-") as metrics_listener,
        open_run_directory() as directory,
    ):
        # Not TorchServe's own, which writes a new one at each start.
        token_file = prepare_token_file(options.token_file or directory.path / "token.json")
        read_tokens(token_file)
        models = collect(options.models, options.chosen, options.expect, directory)
        backend = Backend(java, directory, models, options.limits.body)
        return asyncio.run(Server(options, models, backend, token_file).run(listener, metrics_listener))


def _workers(model: Served, limits: Limits) -> Workers:
    settings = model.settings
    delay = settings.max_batch_delay_ms / 1000
    return Workers(settings.workers, settings.batch_size, limits.body, delay, settings.response_timeout_s)


def _watched(model: Served) -> Watched:
    bundle = model.opened.bundle
    export = model.answers.digest if model.answers is not bundle else ""
    deployed = {"bundle": bundle.digest, "export": export, "format": model.settings.format}
    return Watched(model.name, model.version, bundle.labels, DriftReference.read(bundle.facts), deployed)


class Server:
    """One server in its life: it starts, serves, drains and ends.

    Args:
        backend: Not started yet.
        token_file: That with the clients' tokens.
    """

    def __init__(self, options: Options, models: Sequence[Served], backend: Backend, token_file: Path) -> None:
        self._options, self._models, self._backend = options, models, backend
        self._tokens = Tokens(token_file)
        self._health = Health(frozenset(model.name for model in models))
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        workers = {model.name: _workers(model, options.limits) for model in models}
        proxy = Proxy(lambda: backend.url("inference"), Tokens(backend.key_file), options.request_seconds, workers)
        about = {model.name: model.about for model in models}
        metrics = Metrics([_watched(model) for model in models], self._health)
        self._checks = Checks({model.name: model.goldens for model in models}, proxy)
        self._health.check_deeply_by(self._checks.check_next)
        self._exporter = Exporter(metrics, lambda: backend.url("metrics"))
        self._gateway = Gateway(
            about, self._tokens, proxy, self._health, options.limits, metrics, workers, options.origins
        )

    async def run(self, listener: socket.socket, metrics_listener: socket.socket) -> int:
        """Serves until a signal comes; returns the exit code.

        Raises:
            TrainyardError: a model doesn't load or answers wrong, or TorchServe ended.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        if not os.isatty(0):  # there it says that the terminal was closed
            loop.add_signal_handler(signal.SIGHUP, self._tokens.reload)
        try:
            await self._gateway.open(listener)
            await self._exporter.open(metrics_listener)
            told = await self._until_told(self._serve(url_of(listener), url_of(metrics_listener)))
            if self._health.phase is not Phase.STARTING:
                await self._until_told(self._drain(self._options.lame_duck if told == signal.SIGTERM else 0))
            return EXIT_SIGTERM if told == signal.SIGTERM else 0
        finally:
            await self._exporter.close()
            await self._gateway.close()
            await self._backend.stop()

    async def _until_told(self, work: Coroutine[object, object, None]) -> signal.Signals | None:
        """Works until a signal comes, which is returned, or the work ends."""
        working, told = asyncio.create_task(work), asyncio.create_task(self._signals.get())
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            working.cancel()
            await asyncio.wait({working})
            return told.result()
        told.cancel()
        await working
        return None

    async def _serve(self, url: str, metrics_url: str) -> None:
        """Starts TorchServe, says when it answers right, and watches over it; if it ends, starts it again."""
        failures: deque[float] = deque(maxlen=MOST_FAILURES)
        while True:
            try:
                await self._start()
                if failures:
                    log.info("ready again")
                else:
                    self._announce(url, metrics_url)
                await self._backend.watch(self._health)
            except BackendError as error:
                failures.append(time.monotonic())
                is_hopeless = len(failures) == MOST_FAILURES and failures[-1] - failures[0] < FAILURE_SECONDS
                if is_hopeless or self._health.phase is Phase.STARTING:
                    raise
                log.error("%s; it is started again", error)
                self._health.phase = Phase.RECOVERING
                await self._backend.stop()

    async def _start(self) -> None:
        """Starts TorchServe, and is ready once it answers right."""
        await self._backend.start()
        await self._backend.until_loaded()
        try:
            await self._checks.check_all()
        except WrongAnswerError:
            await self._backend.check_alive()
            raise
        self._health.missing = frozenset()
        self._health.phase = Phase.SERVING

    async def _drain(self, lame_duck: float) -> None:
        """Has others send no more requests, and answers what came in before."""
        if lame_duck:
            log.info("ending: not ready any more; requests are still taken for %g s", lame_duck)
            await self._gateway.leave(lame_duck)
        log.info("ending: no more connections are taken, and what came in is answered; once more ends at once")
        if not await self._gateway.drain(self._options.drain_seconds):
            log.warning("not all requests were answered within %g s", self._options.drain_seconds)

    def _announce(self, url: str, metrics_url: str) -> None:
        """Says that the server is ready: on stderr how to use it and, if it is wanted, a line of JSON on stdout.

        A log in JSON is read by a program: there it is a record, and nobody is told how to ask.
        """
        token_file = self._tokens.path
        names = ", ".join(f"{model.name} ({model.settings.format})" for model in self._models)
        ready = f"ready at {url}: {names}"
        if self._options.log_format == "json":
            log.info(ready)
        else:
            print(f"{ready}\nthe token is in {token_file}; ask in bash:", file=sys.stderr)
            for model in self._models:
                print(f"  {_curl_line(model, url, token_file)}", file=sys.stderr, flush=True)
        if self._options.as_json:
            facts = {
                "inference": url,
                "management": self._backend.url("management"),
                "metrics": metrics_url,
                "token_file": str(token_file),
                "management_token_file": str(self._backend.key_file),
                "models": [model.name for model in self._models],
                "pid": os.getpid(),
            }
            print(json.dumps(facts), flush=True)


def _curl_line(model: Served, url: str, token_file: Path) -> str:
    """A command for bash that asks a model."""
    is_json = token_file.read_bytes().lstrip().startswith(b"{")
    header = f"{HEADER if is_json else PLAIN_HEADER} {shlex.quote(str(token_file))}"
    example = EXAMPLES["pair" if model.opened.bundle.reads_pairs else model.opened.bundle.kind]
    return f"curl -H @<({header}) {example} {url}/predictions/{model.name}"
