"""The verb that makes a model's formats."""

from __future__ import annotations

from typing import Annotated

import typer

from trainyard.artifacts.run import PREDICTIONS
from trainyard.base.errors import EXIT_REFUSED
from trainyard.cli.app import Overrides, Run


def export(
    run: Run,
    overrides: Overrides = None,
    formats: Annotated[
        str | None, typer.Option(help="The formats to make, as in onnx,onnx-int8; by default all of this machine.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a call; one for each core by default.")] = None,
    gate: Annotated[float, typer.Option(min=0, max=1, help="Least share of eager's accuracy and macro-F1.")] = 0.99,
    allow_refused: Annotated[bool, typer.Option("--allow-refused", help="Keep the files of refused formats.")] = False,
) -> None:
    """Export a bundle to every format, score each on the test split beside the model itself, and refuse what got worse.

    Prints a table and, as its last line on stdout, the export's folder. Exits 3 if a format was refused.
    The run's report is drawn anew, with the table in it.
    """
    from trainyard.artifacts.bundle import Bundle
    from trainyard.base.signals import exit_on_sigterm
    from trainyard.formats.table import parse_formats

    exit_on_sigterm()
    names = parse_formats(formats) if formats is not None else None
    bundle = Bundle.open(run)
    from trainyard.report.export import print_export
    from trainyard.report.html import write_report
    from trainyard.verify.export import Options
    from trainyard.verify.export import export as export_bundle
    from trainyard.verify.gate import Gate

    options = Options(names, threads, Gate(metric_share=gate), allow_refused)
    made = export_bundle(bundle, options, overrides or [])
    print_export(made.facts)
    print(made.path)
    if (bundle.path.parent / PREDICTIONS).is_file():
        write_report(bundle.path)
    if not allow_refused and any(row.status == "refused" for row in made.facts.formats):
        raise typer.Exit(EXIT_REFUSED)
