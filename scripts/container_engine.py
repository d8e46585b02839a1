"""A container for a test: started by docker or podman as a careful user would, asked over HTTP, removed by its id."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PORT = "8080"
STARTED_SECONDS = 120.0
"""Time for the first right answer. No test fails for less: how long it took is printed."""
ANSWER_SECONDS = 60.0
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "512")
"""As docs/container.md tells to run it."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; a status of 0 says that no connection was made, or that it was cut."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Its content; what a test looks for in it shows whether it is right."""
        return json.loads(self.body)


def call(command: Sequence[str], may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, its output caught; what it said goes into the error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> Reply:
    """Sends a request without any proxy; never raises for what the server does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, dict(headers)), timeout=ANSWER_SECONDS) as response:
            return Reply(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read())
    except OSError as error:
        return Reply(0, str(error).encode())


@dataclass(frozen=True)
class Container:
    """A running container.

    Attributes:
        engine: ``docker`` or ``podman``.
        id: The engine's.
        started: When it was asked for, of ``time.monotonic``.
        headers: Those of a request that shows the token.
    """

    engine: str
    id: str
    started: float
    headers: Mapping[str, str]

    def address(self) -> str:
        """The container's own address, at which a port that listens is reached unpublished."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return call([self.engine, "inspect", "--format", template, self.id]).stdout.strip()

    def url(self) -> str:
        """Where the published port is."""
        return f"http://{call([self.engine, 'port', self.id, PORT]).stdout.splitlines()[0].strip()}"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        return call([self.engine, "exec", self.id, *command], may_fail=True)

    def logs(self) -> str:
        """What it has said."""
        done = call([self.engine, "logs", self.id], may_fail=True)
        return done.stdout + done.stderr

    def post(self, url: str, model: str, content: Mapping[str, object]) -> Reply:
        """Asks a model for a prediction, with JSON."""
        headers = {**self.headers, "Content-Type": "application/json"}
        return ask(f"{url}/predictions/{model}", json.dumps(content).encode(), headers)

    def seconds_to_answer(self, url: str, model: str, content: Mapping[str, object]) -> float:
        """Asks until an answer comes; returns the seconds since the container was asked for."""
        while time.monotonic() < self.started + STARTED_SECONDS:
            if self.post(url, model, content).status == 200:
                return time.monotonic() - self.started
            if call([self.engine, "inspect", "--format", "{{.State.Running}}", self.id]).stdout.strip() != "true":
                break
            time.sleep(0.02)
        raise SystemExit(f"no answer came; the container says:\n{self.logs()}")

    def exit_code(self) -> int:
        """Waits for its end."""
        return int(call([self.engine, "wait", self.id]).stdout)


@contextlib.contextmanager
def started(engine: str, image: str, runs: Mapping[str, Path], token_file: Path, *options: str) -> Iterator[Container]:
    """Runs the image with these runs mounted at ``/models``, and removes the container at the end.

    Args:
        engine: ``docker`` or ``podman``.
        image: The image's name.
        runs: Run folders, by their names in ``/models``.
        token_file: A file with the token for clients, readable by the image's user.
        options: More options of the engine.
    """
    mounts = [f"--volume={run}:/models/{name}:ro" for name, run in runs.items()]
    mounts.append(f"--volume={token_file}:/run/secrets/token:ro")
    began = time.monotonic()
    command = [engine, "run", "--detach", f"--publish=127.0.0.1::{PORT}", *HARDENED, *mounts, *options, image]
    done = call([*command, "--token-file", "/run/secrets/token", "/models"])
    id = done.stdout.split()[-1]
    try:
        yield Container(engine, id, began, {"Authorization": f"Bearer {token_file.read_text().strip()}"})
    finally:
        call([engine, "rm", "--force", "--volumes", id], may_fail=True)
