"""The verb that packs a model for TorchServe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainyard.base.errors import UsageError
from trainyard.cli.app import (
    AUTO_OR_FORMATS,
    BatchSize,
    Device,
    Expect,
    MaxBatchDelay,
    Run,
    Threads,
    Workers,
    check_format,
)

DEFAULT_P99 = 100.0
"""Milliseconds."""
Format = Annotated[
    str,
    typer.Option(
        callback=check_format,
        metavar=AUTO_OR_FORMATS,
        help="Which of the model's formats; auto is the one that was recommended.",
    ),
]
Name = Annotated[str | None, typer.Option(help="The model's name in URLs; by default the bundle's.")]
Version = Annotated[str, typer.Option(help="The model's version in URLs.")]
Out = Annotated[Path | None, typer.Option(help="The file; archives/NAME-VERSION.mar beside the bundle by default.")]
Tune = Annotated[bool, typer.Option("--tune", help="Choose by trying on this machine what isn't given.")]
P99 = Annotated[
    float | None,
    typer.Option(min=0.1, help="With --tune: milliseconds within which 99 % must be answered; 100 by default."),
]


def archive(
    run: Run,
    format: Format = "auto",
    name: Name = None,
    version: Version = "1.0",
    out: Out = None,
    workers: Workers = None,
    threads: Threads = None,
    batch_size: BatchSize = None,
    max_batch_delay: MaxBatchDelay = None,
    device: Device = None,
    tune: Tune = False,
    p99: P99 = None,
    expect: Expect = None,
) -> None:
    """Make a .mar, from which TorchServe serves a model without anything else but pip packages.

    Prints its path as its last line on stdout. Exits 3 if the export's gate had stopped the format.
    """
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.base.files import sha256_file
    from trainyard.base.signals import exit_on_sigterm
    from trainyard.torchserve.archive import SUFFIX, Model, choose_format, default_name, make_archive
    from trainyard.torchserve.settings import Settings

    exit_on_sigterm()
    if out is not None and (out.is_dir() or out.suffix != SUFFIX):  # serve wouldn't take it for an archive
        raise UsageError(f"--out {out} must be a file that ends in {SUFFIX}, as in model{SUFFIX}")
    if p99 is not None and not tune:
        raise UsageError("--p99 belongs to --tune: give both, or neither")
    opened = open_trusted(run, format, expect=expect)
    format = choose_format(opened, format, device or "cpu")
    chosen = Settings.chosen(
        format=format, device=device, workers=workers, threads=threads, batch_size=batch_size,
        max_batch_delay_ms=max_batch_delay,
    )  # fmt: skip
    name = name or default_name(opened)
    path = out or opened.bundle.path.parent / "archives" / f"{name}-{version}{SUFFIX}"
    settings, tuning = chosen.for_machine(format), None
    if tune:
        from trainyard.torchserve.tune import tune_archive

        settings, tuning = tune_archive(opened, chosen, p99 or DEFAULT_P99)
    make_archive(Model(name, version, settings, opened), path, tuning)
    size, digest = path.stat().st_size, sha256_file(path)
    print(f"{format} as {name} {version}: {size:,} bytes, SHA-256 {digest}", file=sys.stderr)
    print(path)
