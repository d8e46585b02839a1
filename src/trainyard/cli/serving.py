"""The verbs that have a model answer: predict, archive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainyard.artifacts.export_record import FormatName
from trainyard.base.errors import TrainyardError, UsageError
from trainyard.cli.app import AUTO_OR_FORMATS, Expect, Run, app, check_format

if TYPE_CHECKING:
    from trainyard.artifacts.export_record import Opened
    from trainyard.torchserve.settings import Chosen, Device, Settings

DEFAULT_P99 = 100.0
"""Milliseconds."""


@app.command()
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
        from trainyard.client.ask import ask

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


@app.command()
def archive(
    run: Run,
    format: Annotated[
        str,
        typer.Option(
            callback=check_format,
            metavar=AUTO_OR_FORMATS,
            help="Which of the model's formats; auto is the one that was recommended.",
        ),
    ] = "auto",
    name: Annotated[str | None, typer.Option(help="The model's name in URLs; by default the bundle's.")] = None,
    version: Annotated[str, typer.Option(help="The model's version in URLs.")] = "1.0",
    out: Annotated[
        Path | None, typer.Option(help="The file; archives/NAME-VERSION.mar beside the bundle by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one for each core by default, up to 4.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of a call, by default what cores remain.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most requests of a call; 8 by default.")] = None,
    max_batch_delay: Annotated[
        int | None, typer.Option(min=0, help="Milliseconds to wait for a batch to fill; 2 by default.")
    ] = None,
    device: Annotated[
        Literal["cpu", "cuda"] | None, typer.Option(help="What it runs on; by default what the format was made for.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Choose by trying on this machine what isn't given.")] = False,
    p99: Annotated[
        float | None,
        typer.Option(min=0.1, help="With --tune: milliseconds within which 99 % must be answered; 100 by default."),
    ] = None,
    expect: Expect = None,
) -> None:
    """Make a .mar, from which TorchServe serves a model without anything else but pip packages.

    Prints its path as its last line on stdout. Exits 3 if the export's gate had stopped the format.
    """
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.base.signals import exit_on_sigterm
    from trainyard.formats.table import find_format
    from trainyard.torchserve.archive import check_place, choose_format, default_name, default_path, make_archive
    from trainyard.torchserve.archive_check import check_archive
    from trainyard.torchserve.settings import Chosen, choose_settings

    exit_on_sigterm()
    if out is not None:
        check_place(out)
    if p99 is not None and not tune:
        raise UsageError("--p99 belongs to --tune: give both, or neither")
    opened = open_trusted(run, format, expect=expect)
    format = choose_format(opened, format, device or "cpu")
    target: Device = device or ("cuda" if find_format(format).device == "gpu" else "cpu")
    chosen = Chosen(workers, threads, batch_size, max_batch_delay)
    name = name or default_name(opened)
    path = out or default_path(opened, name, version)
    tuning = None
    settings = choose_settings(chosen, target)
    if tune:
        settings, tuning = _tuned(opened, format, chosen, target, p99 or DEFAULT_P99)
    make_archive(opened, format, path, name, version, settings, tuning)
    facts = check_archive(path)
    print(f"{format} as {name} {version}: {facts.size:,} bytes, SHA-256 {facts.sha256}", file=sys.stderr)
    print(path)


def _tuned(
    opened: Opened, format: FormatName, chosen: Chosen, device: Device, p99: float
) -> tuple[Settings, dict[str, object]]:
    """The best settings, and what was measured to find them, which is shown."""
    from trainyard.torchserve.tune import report, tune_archive
    from trainyard.torchserve.tuning_table import print_tuning

    best, measured = tune_archive(opened, format, chosen, device, p99)
    print_tuning(best, measured, p99)
    return best.settings, report(best, measured, p99)
