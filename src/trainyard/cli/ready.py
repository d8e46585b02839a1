"""The verb that asks a server whether it is ready."""

from __future__ import annotations

from typing import Annotated

import typer


def ready(
    url: Annotated[str, typer.Argument(help="Where the server is, as http://127.0.0.1:8080.", metavar="URL")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 10.0,
) -> None:
    """Ask a server whether each of its models answers right: exit 0 if so, 1 if not. A probe for containers.

    The server has each model answer one of its golden requests, so that the probe needs no token. What it finds is
    told to all that ask within 5 seconds.
    """
    from trainyard.client.ready import check_ready

    check_ready(url, timeout)
