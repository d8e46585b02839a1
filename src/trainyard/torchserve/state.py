"""What TorchServe and its workers say, and what the system shows of their processes."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

import psutil

from trainyard.torchserve.worker import BUSY, LOADED, STARTED

STOPPED_SECONDS = 0.9
"""A process that is still stopped at the next look is ended."""
STUCK_SECONDS = 3.9
"""Time with a batch in hand, asleep and without any use of a processor, after which a worker waits for ever."""
PORT_TAKEN = "Address already in use"
LINE = re.compile(
    r"(?P<level>[A-Z]+) *\|(?P<logger>\w+)\|(W-(?P<place>\d+-(?P<model>[\w.-]+)_[^_|]+?)(-stdout|-stderr)?|[^|]*)\|"
    r"(?P<text>.*)"
)
"""A line as serving/log4j2.xml writes it, of a thread of Java that may be a worker's."""
ERROR = re.compile(
    r"(?P<own>trainyard\.base\.errors\.)?([\w.]+\.)?(?P<name>\w*(Error|Exception|Interrupt|Exit))(: (?P<text>.*))?"
)
"""The last line of a traceback."""
FAILED_TO_LOAD = re.compile(r"Failed to load model \S+, exception (.*)")
"""What a worker says before one where it has a word of the reason, which is then missing in the last line."""
ENDED = "Retry worker: "
"""What TorchServe says when a worker has ended and it will start another."""
UNANSWERED = "Number or consecutive unsuccessful inference"
"""What TorchServe says before it ends a worker that took too long for a batch."""


@dataclass
class Life:
    """A worker's process, from what it said first.

    Attributes:
        model: Whose worker it is.
        is_ready: It has loaded the model, and nobody has noticed its end.
        error: The last that it said.
        reason: Why it ended, where that isn't the last error.
    """

    model: str
    pid: int = 0
    is_ready: bool = False
    error: str = "it said nothing; the system may have ended it for want of memory"
    reason: str = ""

    @property
    def why_ended(self) -> str:
        """Why it ended, as far as is known."""
        return self.reason or self.error

    def add(self, text: str) -> None:
        """Takes a line that it said."""
        self.is_ready |= text == LOADED
        if found := ERROR.fullmatch(text):
            own, name, said = found.group("own", "name", "text")
            self.error = said if own and said else f"{name}: {said}" if said else name
        elif found := FAILED_TO_LOAD.fullmatch(text):
            self.reason = found[1]


class TorchServeLog:
    """What TorchServe and its workers say, kept so that a failure can be explained by its real reason.

    Attributes:
        ended: The workers that have ended, to be taken from here; their last words may come a little later.
        reason: The last error of TorchServe itself, as far as it said.
        is_port_taken: Another program has one of its ports.
    """

    def __init__(self) -> None:
        self.ended: deque[Life] = deque()
        self.reason = "it said nothing"
        self.is_port_taken = self._is_error = False
        self._lives: dict[str, Life] = {}

    def add(self, line: str) -> None:
        """Takes a line of TorchServe's stdout."""
        found = LINE.fullmatch(line)
        text = found["text"].rstrip() if found else line
        if found and (place := found["place"]):
            is_first = text.startswith(STARTED)
            if is_first or place not in self._lives:
                self._lives[place] = Life(found["model"], int(text.removeprefix(STARTED)) if is_first else 0)
            life = self._lives[place]
            if found["logger"] == "MODEL_LOG":
                life.add(text)
                return
            if text.startswith(UNANSWERED):
                life.reason = "it gave no answer within the response timeout"
            elif text.startswith(ENDED):
                life.is_ready = False
                self.ended.append(life)
        self.is_port_taken |= PORT_TAKEN in line
        is_error = line.startswith(("ERROR", "FATAL")) or ERROR.search(line) is not None
        if (is_error or not self._is_error) and not line.startswith("\t"):  # that is where in Java's code it was
            self.reason, self._is_error = text.strip(), is_error

    def ready(self, model: str) -> list[Life]:
        """The workers that have loaded a model."""
        return [life for life in self._lives.values() if life.is_ready and life.model == model]


def look_at(pid: int) -> dict[str, Any]:
    """Name, status and times of a process as the system shows them; empty if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).as_dict(["name", "status", "cpu_times"])
    return {}


class Pulse:
    """Finds out, by looking again and again, which processes will do nothing any more.

    A worker that takes long isn't one of them: it computes, and uses a processor. TorchServe ends it when its response
    timeout is over, and nobody can tell an endless loop from a long batch any sooner.
    """

    def __init__(self) -> None:
        self._still: dict[int, tuple[dict[str, Any], float]] = {}

    def complaint(self, pid: int, now: float) -> str | None:
        """What is wrong with a process, if anything."""
        seen = look_at(pid)
        status = seen.get("status")
        is_stopped = status == psutil.STATUS_STOPPED  # whom a debugger holds has another
        if not is_stopped and not (status == psutil.STATUS_SLEEPING and seen["name"] == BUSY.decode()):
            self._still.pop(pid, None)
            return None
        last, since = self._still.get(pid, (seen, now))
        since = since if last == seen else now
        self._still[pid] = seen, since
        if is_stopped and now - since > STOPPED_SECONDS:
            return "it was stopped"
        return "it was stuck: it did nothing with a batch in hand" if now - since > STUCK_SECONDS else None
