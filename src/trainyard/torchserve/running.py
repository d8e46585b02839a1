"""A server as a context: for programs that want one up for a while, such as benchmarks and tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.base.errors import TrainyardError
from trainyard.client.access import read_token

END_SECONDS = 60.0
"""Time to end after SIGTERM, the requests on their way included."""


class NotServedError(TrainyardError):
    """``serve`` ended before it was ready.

    Attributes:
        exit_code: Its own.
    """

    def __init__(self, exit_code: int, said: str) -> None:
        last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
        super().__init__(last.removeprefix("trainyard: "))
        self.exit_code = exit_code
        self.said = said


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Attributes:
        process: That of ``serve``; Java and the workers are below it.
        facts: What it says of itself with ``--json``.
    """

    process: subprocess.Popen[str]
    facts: Mapping[str, Any]

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    @property
    def inference_url(self) -> str:
        """Where predictions are asked for."""
        return str(self.facts["inference"])

    @property
    def token_file(self) -> Path:
        """The file with the token that clients show."""
        return Path(self.facts["token_file"])

    @property
    def token(self) -> str:
        """What clients show, as it is now."""
        return read_token(self.token_file)


@contextlib.contextmanager
def running(
    models: Sequence[str | Path],
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
) -> Iterator[Running]:
    """Runs ``trainyard serve`` on a free port, and ends it by SIGTERM.

    Args:
        models: ``[NAME=]RUN`` each.
        options: More words of the command line, as in ``["--format", "onnx-int8"]``.
        environment: Variables beside those of this process.
        python: The interpreter, of an environment that serves.

    Raises:
        NotServedError: it ended before it was ready; says why.
    """
    command = [str(python), "-m", "trainyard", "serve", *map(str, models), "--port", "0", "--json", *options]
    surroundings = {**os.environ, **(environment or {})}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=surroundings) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                code = process.wait()
                said.seek(0)
                raise NotServedError(code, said.read())
            yield Running(process, json.loads(line))
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
