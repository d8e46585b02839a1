"""What TorchServe and its workers say, kept so that a failure can be explained by its real reason."""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable

KEPT = 400
"""Lines of each worker, and of TorchServe itself."""
LINE = re.compile(r"(?P<level>[A-Z]+) *\|(?P<logger>\w+)\|(?P<thread>[^|]*)\|(?P<text>.*)")
"""A line as serving/log4j2.xml writes it."""
WORKER = re.compile(r"W-(?P<port>\d+)-(?P<model>[\w.-]+)_(?P<version>[^_]+?)(-stdout|-stderr)?")
"""The name of a worker's thread in Java."""
ERROR = re.compile(r"(?P<module>[\w.]+\.)?(?P<name>\w*(Error|Exception|Interrupt|Exit))(: (?P<text>.*))?")
"""The last line of a traceback."""
STARTED = "s_name_part0="
"""What a worker says first."""
ENDED = "Retry worker: "
"""What TorchServe says when a worker has ended and it will start another."""
UNANSWERED = "Number or consecutive unsuccessful inference"
"""What TorchServe says before it ends a worker that took too long for a batch."""
LOAD_FAILED = re.compile(r"Failed to load model \S+, exception (?P<text>.*)")
OWN_ERRORS = "trainyard.base.errors."


class WorkerLog:
    """Takes the lines as they come, from whatever thread.

    Args:
        ended: Called with a model's name when one of its workers ended.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._lock = threading.Lock()
        self._server: deque[str] = deque(maxlen=KEPT)
        self._workers: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._last: dict[str, str] = {}
        self._unanswered: set[str] = set()

    def add(self, line: str) -> None:
        """Takes a line of TorchServe's stdout."""
        found = LINE.fullmatch(line)
        worker = WORKER.fullmatch(found["thread"]) if found else None
        if found is None or worker is None:
            with self._lock:
                self._server.append(line)
            return
        model, text = worker["model"], found["text"].rstrip()
        key = f"{worker['port']} {model}"
        with self._lock:
            if found["logger"] == "MODEL_LOG":
                if text.startswith(STARTED):
                    self._workers[key].clear()
                    self._unanswered.discard(key)
                self._workers[key].append(text)
            else:
                self._server.append(line)
                if text.startswith(UNANSWERED):
                    self._unanswered.add(key)
        if text.startswith(ENDED):
            self._last[model] = key
            self._ended(model)

    def worker_reason(self, model: str) -> str:
        """Why the worker of a model that ended last did so, as far as it said."""
        with self._lock:
            key = self._last.get(model, "")
            lines = list(self._workers[key])
            if key in self._unanswered:
                return "it gave no answer within the response timeout"
        for line in lines:
            if failed := LOAD_FAILED.fullmatch(line):
                return failed["text"]
        for line in reversed(lines):
            if error := ERROR.fullmatch(line):
                text = error["text"] or ""
                if (error["module"] or "") == OWN_ERRORS and text:
                    return text
                return f"{error['name']}: {text}" if text else error["name"]
        return "it said nothing; the system may have ended it for want of memory"

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
