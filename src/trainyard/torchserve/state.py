"""What TorchServe and its workers say, and what the system shows of their processes."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from trainyard.torchserve.worker import BUSY

STOPPED_SECONDS = 0.9
"""A process that is still stopped at the next look is ended."""
STUCK_SECONDS = 3.9
"""Time with a batch in hand, asleep and without any use of a processor, after which a worker waits for ever."""
KEPT = 400
"""Lines of each worker, and of TorchServe itself."""
LINE = re.compile(
    r"(?P<level>[A-Z]+) *\|(?P<logger>\w+)\|(W-(?P<place>\d+-(?P<model>[\w.-]+)_[^_|]+?)(-stdout|-stderr)?|[^|]*)\|"
    r"(?P<text>.*)"
)
"""A line as serving/log4j2.xml writes it, of a thread of Java that may be a worker's."""
ERROR = re.compile(
    r"Failed to load model \S+, exception (?P<load>.*)|"
    r"(?P<own>trainyard\.base\.errors\.)?([\w.]+\.)?(?P<name>\w*(Error|Exception|Interrupt|Exit))(: (?P<text>.*))?"
)
"""The last line of a traceback, or what a worker says before that where it has a word of the reason."""
STARTED = re.compile(r"s_name_part0=.*pid=(?P<pid>\d+)")
"""What a worker says first."""
ENDED = "Retry worker: "
"""What TorchServe says when a worker has ended and it will start another."""
UNANSWERED = "Number or consecutive unsuccessful inference"
"""What TorchServe says before it ends a worker that took too long for a batch."""


@dataclass
class Life:
    """A worker's process, from what it said first.

    Attributes:
        model: Whose worker it is.
        pid: Its id.
        lines: What it said.
        reason: Why it was ended, where it can't say so itself.
    """

    model: str
    pid: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    reason: str | None = None

    def why_ended(self) -> str:
        """Why it ended, as far as is known."""
        if self.reason:
            return self.reason
        errors = [error for line in self.lines if (error := ERROR.fullmatch(line))]
        for error in errors:
            if error["load"]:
                return error["load"]
        if errors:
            own, name, text = errors[-1].group("own", "name", "text")
            return text if own and text else f"{name}: {text}" if text else name
        return "it said nothing; the system may have ended it for want of memory"


class TorchServeLog:
    """What TorchServe and its workers say, kept so that a failure can be explained by its real reason.

    Attributes:
        ended: The workers that have ended, to be taken from here; their last words may come a little later.
    """

    def __init__(self) -> None:
        self.ended: deque[Life] = deque()
        self._own: deque[str] = deque(maxlen=KEPT)
        self._lives: dict[str, Life] = {}

    def add(self, line: str) -> None:
        """Takes a line of TorchServe's stdout."""
        found = LINE.fullmatch(line)
        if not found or not found["place"]:
            self._own.append(line)
            return
        text = found["text"].rstrip()
        life = self._lives.setdefault(found["place"], Life(found["model"]))
        if found["logger"] == "MODEL_LOG":
            if started := STARTED.match(text):
                life = self._lives[found["place"]] = Life(found["model"], int(started["pid"]))
            life.lines.append(text)
            return
        self._own.append(line)
        if text.startswith(UNANSWERED):
            life.reason = "it gave no answer within the response timeout"
        elif text.startswith(ENDED):
            self.ended.append(life)

    def blame(self, pid: int, reason: str) -> None:
        """Says why a worker is going to end."""
        for life in self._lives.values():
            if life.pid == pid:
                life.reason = reason

    def reason(self) -> str:
        """The last error of TorchServe itself, as far as it said; no line of where in Java's code that was."""
        said = [line for line in self._own if line == line.lstrip()]
        errors = [line for line in said if line.startswith(("ERROR", "FATAL")) or ERROR.search(line)]
        last = (errors or said or ["it said nothing"])[-1].strip()
        found = LINE.fullmatch(last)
        return found["text"].strip() if found else last

    def says(self, text: str) -> bool:
        """Whether TorchServe itself has said this."""
        return any(text in line for line in self._own)


class Look(NamedTuple):
    """A process as the system shows it.

    Attributes:
        name: What it calls itself.
        status: One of psutil's words.
        seconds: Of a processor, used by all its threads.
    """

    name: str
    status: str
    seconds: float

    @staticmethod
    def at(pid: int) -> Look | None:
        """A look at a process; nothing if it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Look(process.name(), process.status(), times.user + times.system)
        return None


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
        is_stopped = look is not None and look.status == psutil.STATUS_STOPPED  # whom a debugger holds has another
        is_waiting = look is not None and look.status == psutil.STATUS_SLEEPING and look.name == BUSY
        if look is None or not (is_stopped or is_waiting):
            self._still.pop(pid, None)
            return None
        last, since = self._still.get(pid, (look, now))
        since = since if last == look else now
        self._still[pid] = look, since
        if is_stopped and now - since > STOPPED_SECONDS:
            return "it was stopped"
        return "it was stuck: it did nothing with a batch in hand" if now - since > STUCK_SECONDS else None
