"""The verb that packs a model for TorchServe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainyard.base.errors import UsageError
from trainyard.cli.app import AUTO_OR_FORMATS, Expect, Run, check_format

DEFAULT_P99 = 100.0
"""Milliseconds."""


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
    from trainyard.base.files import sha256_file
    from trainyard.base.signals import exit_on_sigterm
    from trainyard.torchserve.archive import check_place, choose_format, default_name, default_path, make_archive
    from trainyard.torchserve.settings import Settings

    exit_on_sigterm()
    if out is not None:
        check_place(out)
    if p99 is not None and not tune:
        raise UsageError("--p99 belongs to --tune: give both, or neither")
    opened = open_trusted(run, format, expect=expect)
    format = choose_format(opened, format, device or "cpu")
    chosen = Settings.chosen(
        format=format, device=device, workers=workers, threads=threads, batch_size=batch_size,
        max_batch_delay_ms=max_batch_delay,
    )  # fmt: skip
    name = name or default_name(opened)
    path = out or default_path(opened, name, version)
    settings, tuning = chosen.for_machine(format), None
    if tune:
        from trainyard.torchserve.tune import tune_archive

        settings, tuning = tune_archive(opened, chosen, p99 or DEFAULT_P99)
    make_archive(opened, settings, path, name, version, tuning)
    size, digest = path.stat().st_size, sha256_file(path)
    print(f"{format} as {name} {version}: {size:,} bytes, SHA-256 {digest}", file=sys.stderr)
    print(path)
