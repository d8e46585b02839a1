"""What TorchServe and its workers say, and what the system shows of their processes."""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainyard.torchserve.worker import BUSY

STOPPED_SECONDS = 0.9
"""A process that is still stopped at the next look is ended."""
STUCK_SECONDS = 3.9
"""Time with a batch in hand, asleep and without any use of a processor, after which a worker waits for ever."""
KEPT = 400
"""Lines of each worker, and of TorchServe itself."""
LINE = re.compile(r"(?P<level>[A-Z]+) *\|(?P<logger>\w+)\|(?P<thread>[^|]*)\|(?P<text>.*)")
"""A line as serving/log4j2.xml writes it."""
WORKER = re.compile(r"W-(?P<port>\d+)-(?P<model>[\w.-]+)_(?P<version>[^_]+?)(-stdout|-stderr)?")
"""The name of a worker's thread in Java."""
ERROR = re.compile(r"(?P<module>[\w.]+\.)?(?P<name>\w*(Error|Exception|Interrupt|Exit))(: (?P<text>.*))?")
"""The last line of a traceback."""
STARTED = re.compile(r"s_name_part0=.*pid=(?P<pid>\d+)")
"""What a worker says first."""
ENDED = "Retry worker: "
"""What TorchServe says when a worker has ended and it will start another."""
UNANSWERED = "Number or consecutive unsuccessful inference"
"""What TorchServe says before it ends a worker that took too long for a batch."""
LOAD_FAILED = re.compile(r"Failed to load model \S+, exception (?P<text>.*)")
OWN_ERRORS = "trainyard.base.errors."


@dataclass
class Life:
    """A worker's process, from what it said first.

    Attributes:
        pid: Its id.
        lines: What it said.
        reason: Why it was ended, where it can't say so itself.
    """

    pid: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    reason: str | None = None

    def why_ended(self) -> str:
        """Why it ended, as far as is known."""
        if self.reason:
            return self.reason
        for line in self.lines:
            if failed := LOAD_FAILED.fullmatch(line):
                return failed["text"]
        for line in reversed(self.lines):
            if error := ERROR.fullmatch(line):
                text = error["text"] or ""
                if (error["module"] or "") == OWN_ERRORS and text:
                    return text
                return f"{error['name']}: {text}" if text else error["name"]
        return "it said nothing; the system may have ended it for want of memory"


class WorkerLog:
    """What TorchServe and its workers say, kept so that a failure can be explained by its real reason.

    It takes the lines as they come, from whatever thread.

    Attributes:
        ended: The models of the workers that have ended, to be taken from here.
    """

    def __init__(self) -> None:
        self.ended: deque[str] = deque()
        self._lock = threading.Lock()
        self._server: deque[str] = deque(maxlen=KEPT)
        self._lives: defaultdict[str, Life] = defaultdict(Life)
        self._last: dict[str, Life] = {}

    def add(self, line: str) -> None:
        """Takes a line of TorchServe's stdout."""
        found = LINE.fullmatch(line)
        worker = WORKER.fullmatch(found["thread"]) if found else None
        with self._lock:
            if found is None or worker is None:
                self._server.append(line)
                return
            place, text = f"{worker['port']} {worker['model']}", found["text"].rstrip()
            if found["logger"] == "MODEL_LOG":
                if started := STARTED.match(text):
                    self._lives[place] = Life(int(started["pid"]))
                self._lives[place].lines.append(text)
                return
            self._server.append(line)
            if text.startswith(UNANSWERED):
                self._lives[place].reason = "it gave no answer within the response timeout"
            elif text.startswith(ENDED):
                self._last[worker["model"]] = self._lives[place]
                self.ended.append(worker["model"])

    def blame(self, pid: int, reason: str) -> None:
        """Says why a worker is going to end."""
        with self._lock:
            for life in self._lives.values():
                if life.pid == pid:
                    life.reason = reason

    def worker_reason(self, model: str) -> str:
        """Why the worker of a model that ended last did so, as far as is known."""
        with self._lock:
            return self._last.get(model, Life()).why_ended()

    def server_reason(self) -> str:
        """The last error of TorchServe itself, as far as it said."""
        with self._lock:
            lines = list(self._server)
        errors = [line for line in lines if line.startswith(("ERROR", "FATAL")) or ERROR.search(line)]
        return (errors or lines or ["it said nothing"])[-1].strip()

    def says(self, text: str) -> bool:
        """Whether TorchServe itself has said this."""
        with self._lock:
            return any(text in line for line in self._server)


class Look(NamedTuple):
    """A process as Linux shows it.

    Attributes:
        name: What it calls itself.
        state: ``R`` while it computes, ``S`` while it waits, ``T`` while it is stopped.
        ticks: Of a processor, used by all its threads.
    """

    name: str
    state: str
    ticks: int

    @staticmethod
    def at(pid: int) -> Look | None:
        """A look at a process; nothing if it is gone, or where there is no ``/proc``."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        name, _, rest = text.partition("(")[2].rpartition(") ")
        fields = rest.split()
        return Look(name, fields[0], int(fields[11]) + int(fields[12]))

    @property
    def is_stopped(self) -> bool:
        """Whether it runs no more, as after SIGSTOP. Whom a debugger holds has another state."""
        return self.state == "T"

    @property
    def is_waiting(self) -> bool:
        """Whether it is a worker that waits, not for a batch but with one."""
        return self.state == "S" and self.name == BUSY


class Pulse:
    """Finds out, by looking again and again, which processes will do nothing any more.

    A worker that takes long isn't one of them: it computes, and uses a processor. TorchServe ends it when its response
    timeout is over, and nobody can tell an endless loop from a long batch any sooner.
    """

    def __init__(self) -> None:
        self._still: dict[int, tuple[Look, float]] = {}

    def complaint(self, pid: int, now: float) -> str | None:
        """What is wrong with a process, if anything."""
        look = Look.at(pid)
        if look is None or not (look.is_stopped or look.is_waiting):
            self._still.pop(pid, None)
            return None
        last, since = self._still.get(pid, (look, now))
        since = since if last == look else now
        self._still[pid] = look, since
        if look.is_stopped and now - since > STOPPED_SECONDS:
            return "it was stopped"
        return "it was stuck: it did nothing with a batch in hand" if now - since > STUCK_SECONDS else None
