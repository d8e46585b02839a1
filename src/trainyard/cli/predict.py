"""The verb that has a model answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainyard.base.errors import TrainyardError, UsageError
from trainyard.cli.app import AUTO_OR_FORMATS, Expect, check_format


def predict(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="A run folder, or its bundle; left out with --url.", metavar="RUN")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders of images; texts, text files; tables (CSV, TSV, JSONL, Parquet); - reads stdin.",
            metavar="[INPUT]...",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            callback=check_format,
            metavar=AUTO_OR_FORMATS,
            help="Which of the model's formats answers; auto is the fastest that passed and can run here.",
        ),
    ] = "auto",
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show of each item.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the answers to this CSV file.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a call; by default one for each core.")] = None,
    expect: Expect = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead, as in http://localhost:8080.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Holds the server's token.")] = None,
    model: Annotated[str | None, typer.Option(help="The server's model to ask, if it has several.")] = None,
) -> None:
    """Classify images or texts: label, probability, runners-up. By a run, or by a server: predict --url URL INPUT..."""
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.inference.inputs import Reads, answer, read_inputs
    from trainyard.report.terminal import check_writable, print_predictions, write_predictions

    if out is not None:
        check_writable(out)
    _check_source(context, run, url)
    if url is not None:
        from trainyard.client.client import ask

        words = [word for word in (run, *(inputs or [])) if word is not None]
        answers = ask(url, token_file, model, words or ["-"], top_k)
    else:
        from trainyard.inference.predictor import Predictor

        opened = open_trusted(Path(run or ""), format, expect=expect)
        named = list(read_inputs(inputs or ["-"], Reads.of(opened.bundle)))
        predictor = Predictor(opened, format, threads=threads)
        answers = answer(named, lambda items: predictor.predict(items, top_k))
    if out is not None:
        write_predictions(out, answers)
    if out is None or as_json:
        print_predictions(answers, as_json)
    if any(isinstance(given, TrainyardError) for _, given in answers):
        raise typer.Exit(1)


def _check_source(context: typer.Context, run: str | None, url: str | None) -> None:
    """Raises ``UsageError`` if there is neither a run nor a server, or an option that is for the other."""
    if run is None and url is None:
        raise UsageError("give a RUN to predict with, or --url URL of a server")
    foreign = ("token_file", "model") if url is None else ("format", "threads", "expect")
    for name in foreign:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            why = "is the server's own matter: leave it out" if url else "is for a server: give its --url, too"
            raise UsageError(f"--{name.replace('_', '-')} {why}")
