"""The verb that looks for what is wrong before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainyard.cli.app import Overrides


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Also check this config's data, and rehearse its run.", metavar="CONFIG")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check this machine, and a config's data and model, without training; each finding comes with its fix."""
    from rich.console import Console

    from trainyard.config.load import load_experiment
    from trainyard.doctor import check_data, check_machine, check_rehearsal, check_start, exit_code, render

    if config is None:
        checks = check_machine()
    else:
        experiment = load_experiment(config, overrides or [])
        checks = check_machine((experiment.out, Path(experiment.data.cache)))
        found = check_start(experiment) + check_data(experiment)
        # What is wrong already would only be said again.
        checks += found if exit_code(found) else found + check_rehearsal(experiment)
    Console().print(render(checks))
    raise typer.Exit(exit_code(checks))
