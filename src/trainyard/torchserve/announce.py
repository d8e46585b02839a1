"""What is said when a server is ready: to a program as a line of JSON, to a person how to ask it."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from trainyard.gateway.access_log import LogFormat
from trainyard.torchserve.backend import Backend
from trainyard.torchserve.store import Served

log = logging.getLogger(__name__)

HEADER = r"""sed -n '/"inference"/,/}/ s/.*"key": "\([^"]*\)".*/Authorization: Bearer \1/p'"""
"""Makes a header of a token file, which curl reads as a file: on a command line others could see it."""
PLAIN_HEADER = """awk 'NR == 1 {print "Authorization: Bearer " $NF}'"""
# By what a model accepts and not asked of its preprocessor, which knows nothing of curl.
EXAMPLES = {
    "image": '-H "Content-Type: image/jpeg" --data-binary @IMAGE',
    "text": '-H "Content-Type: text/plain" --data-raw "TEXT"',
    "pair": """-H "Content-Type: application/json" --data-raw '{"text": ["ONE", "OTHER"]}'""",
}


def announce(
    models: Sequence[Served],
    url: str,
    metrics_url: str,
    backend: Backend,
    token_file: Path,
    as_json: bool,
    log_format: LogFormat,
) -> None:
    """Says that the server is ready: on stderr how to use it and, if it is wanted, a line of JSON on stdout.

    A log in JSON is read by a program: there it is a record, and nobody is told how to ask.
    """
    names = ", ".join(f"{model.name} ({model.settings.format})" for model in models)
    ready = f"ready at {url}: {names}"
    if log_format == "json":
        log.info(ready)
    else:
        print(f"{ready}\nthe token is in {token_file}; ask in bash:", file=sys.stderr)
        for model in models:
            print(f"  {curl_line(model, url, token_file)}", file=sys.stderr, flush=True)
    if as_json:
        facts = {
            "inference": url,
            "management": backend.url("management"),
            "metrics": metrics_url,
            "token_file": str(token_file),
            "management_token_file": str(backend.key_file),
            "models": [model.name for model in models],
            "pid": os.getpid(),
        }
        print(json.dumps(facts), flush=True)


def curl_line(model: Served, url: str, token_file: Path) -> str:
    """A command for bash that asks a model."""
    is_json = token_file.read_bytes().lstrip().startswith(b"{")
    header = f"{HEADER if is_json else PLAIN_HEADER} {shlex.quote(str(token_file))}"
    example = EXAMPLES["pair" if model.accepts.pair else model.accepts.kind]
    return f"curl -H @<({header}) {example} {url}/predictions/{model.name}"
