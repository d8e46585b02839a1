"""The verb that draws a run's report anew."""

from __future__ import annotations

from typing import Annotated

import typer

from trainyard.cli.app import Run


def report(
    run: Run,
    open_it: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Draw report.html of a run anew, as after a change of its template; prints its path.

    It holds all that it shows, needs no network, and is made of what the run kept, not of the data.
    """
    from trainyard.report.html import write_report

    path = write_report(run)
    print(path)
    if open_it:
        typer.launch(str(path))
