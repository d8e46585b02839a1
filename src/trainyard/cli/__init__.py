"""The command line. Heavy imports stay inside the verbs, so that ``--help`` answers at once."""

from __future__ import annotations

import importlib
import io
import os
import sys
import time
import traceback

from trainyard.cli.app import app
from trainyard.cli.failures import ADVICE, explain

# In the order of the help; each is the function of that name in the module of that name.
for verb in ("train", "config", "evaluate", "report", "runs", "compare", "export", "benchmark", "predict", "archive",
             "serve", "ready", "doctor"):  # fmt: skip
    app.command()(getattr(importlib.import_module(f"trainyard.cli.{verb}"), verb))

OTHERS_WAIT = 15.0
"""Seconds that a failing process leaves another to say it first."""
TURN_WAIT = 2.0
"""Seconds more for each process before it on this node, so that on a node without rank 0 one alone says it."""


def main() -> None:
    """Runs the command line; what a user can mend is one sentence and its exit code, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show isn't worth a traceback
            stream.reconfigure(errors="backslashreplace")
    words = _debug_first(sys.argv[1:])
    try:
        app(words)
    except (KeyboardInterrupt, Exception) as error:
        failure = explain(error, next((word for word in words if word in ADVICE), ""))
        if failure is None:
            raise
        if os.environ.get("TRAINYARD_DEBUG"):
            traceback.print_exception(error)
        if failure.others_know_more:
            # The launcher ends this process soon after another one, which knows more, has ended.
            time.sleep(OTHERS_WAIT + TURN_WAIT * int(os.environ.get("LOCAL_RANK", "0")))
        print(f"trainyard: {failure.message}", file=sys.stderr)
        sys.stdout.flush()
        raise SystemExit(failure.code) from None


def _debug_first(words: list[str]) -> list[str]:
    """Puts ``--debug`` where the options of all verbs are; behind ``--`` it is an input as any other."""
    end = words.index("--") if "--" in words else len(words)
    if "--debug" not in words[:end]:
        return words
    return ["--debug", *(word for word in words[:end] if word != "--debug"), *words[end:]]
