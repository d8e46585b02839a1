"""The private folder that one ``serve`` works in, and the watchdog that clears up when ``serve`` can't."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trainyard.base.errors import UsageError
from trainyard.torchserve import watchdog

LONGEST_SOCKET = 103
"""Bytes of the path of a Unix socket, by which TorchServe speaks to its workers (104 with its end on macOS)."""
SOCKET = ".ts.sock.9000"
KEY_FILE = "key_file.json"


@dataclass(frozen=True)
class RunDirectory:
    """A folder of mode 0700 with what TorchServe needs and writes; its working directory, in which it puts its keys."""

    path: Path
    _watchdog: IO[str]

    @property
    def store(self) -> Path:
        """The archives."""
        return self.path / "store"

    @property
    def temporary(self) -> Path:
        """Where Java unpacks the archives and makes its sockets; the workers' temporary folder too."""
        return self.path / "tmp"

    @property
    def key_file(self) -> Path:
        """TorchServe's keys, which it writes when it starts and when one is renewed."""
        return self.path / KEY_FILE

    def watch(self, group: int) -> None:
        """Has the watchdog kill this process group if this process is killed."""
        self._watchdog.write(f"{group}\n")
        self._watchdog.flush()


@contextlib.contextmanager
def open_run_directory() -> Iterator[RunDirectory]:
    """Makes the folder, and removes it at the end.

    Raises:
        UsageError: there is no place for temporary folders, or its path is too long for sockets.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="trainyard-"))
    except OSError as error:
        raise UsageError(f"no temporary folder can be made ({error}): set TMPDIR to one that can be written") from error
    try:
        if len(os.fsencode(path / "tmp" / SOCKET)) > LONGEST_SOCKET:
            raise UsageError(f"{path.parent} is too long a path for sockets: set TMPDIR to a shorter one, as /tmp")
        with _watchdog_of(path) as pipe:
            directory = RunDirectory(path, pipe)
            for folder in (directory.store, directory.temporary):
                folder.mkdir(mode=0o700)
            yield directory
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _watchdog_of(folder: Path) -> Iterator[IO[str]]:
    command = [sys.executable, "-I", "-S", watchdog.__file__, str(folder)]
    # A session of its own: Ctrl-C in a terminal is meant for serve alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdin is not None
        yield process.stdin
        with contextlib.suppress(BrokenPipeError):  # it was killed; nothing is lost
            process.stdin.write(watchdog.END)
            process.stdin.close()
