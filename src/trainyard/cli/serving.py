"""The verbs that have a model answer: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainyard.cli.app import Expect, Run, app
from trainyard.core.rungs import Rung
from trainyard.errors import TrainyardError


@app.command()
def predict(
    run: Run,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders of images; texts, text files; tables (CSV, TSV, JSONL, Parquet); - reads stdin.",
            metavar="[INPUT]...",
        ),
    ] = None,
    format: Annotated[
        Literal["auto", Rung],
        typer.Option(help="Which of the model's formats answers; auto is the fastest that passed and can run here."),
    ] = "auto",
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show of each item.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the answers to this CSV file.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a call; by default one for each core.")] = None,
    expect: Expect = None,
) -> None:
    """Classify images or texts: label, probability, runners-up."""
    from trainyard.core.exports import open_trusted
    from trainyard.core.inputs import Reads, answer, read_inputs
    from trainyard.core.predictor import Predictor
    from trainyard.report.terminal import check_writable, print_predictions, write_predictions

    if out is not None:
        check_writable(out)
    opened = open_trusted(run, format, expect=expect)
    named = list(read_inputs(inputs or ["-"], Reads.of(opened.bundle)))
    answers = answer(named, Predictor(opened, format, threads=threads), top_k)
    if out is not None:
        write_predictions(out, answers)
    if out is None or as_json:
        print_predictions(answers, as_json)
    if any(isinstance(given, TrainyardError) for _, given in answers):
        raise typer.Exit(1)
