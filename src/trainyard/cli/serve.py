"""The verb that runs a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainyard.cli.app import AUTO_OR_FORMATS, BatchSize, Device, MaxBatchDelay, Threads, Workers, check_format

METRICS_PORT = 9464
"""That of OpenTelemetry's exporters for Prometheus."""
Models = Annotated[
    list[str],
    typer.Argument(
        help="A run folder, a bundle, a .mar archive, or a folder of these; NAME=RUN gives it a name.",
        metavar="[NAME=]RUN...",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for others to reach it.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
MetricsHost = Annotated[str, typer.Option(help="Address of the metrics for Prometheus, which need no token.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port of these, at /metrics. By default 9464, or with --port 0 a free one, as 0 takes.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Say that it is ready as a line of JSON on stdout.")]
Format = Annotated[
    str,
    typer.Option(
        callback=check_format,
        metavar=AUTO_OR_FORMATS,
        help="Which format answers; auto is the fastest that passed and can run here.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the token that clients show, or NAME TOKEN a line; followed as it changes, and made with a "
        "new token if it isn't there. By default a new token."
    ),
]
Digests = Annotated[
    str | None,
    typer.Option(
        envvar="TRAINYARD_EXPECT",
        help="Digests of which each model must have one, with commas between them.",
        metavar="DIGESTS",
    ),
]
MaxBody = Annotated[float, typer.Option(min=0.001, help="Megabytes of the largest request.")]
RequestSeconds = Annotated[float, typer.Option(min=0.1, help="Time within which a request is answered.")]
LameDuck = Annotated[
    float,
    typer.Option(
        min=0, help="Seconds after SIGTERM in which it tells probes that it isn't ready, and takes requests still."
    ),
]
DrainSeconds = Annotated[float, typer.Option(min=0, help="Time to answer what came in before, when it is told to end.")]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin of pages that may ask from a browser, as https://example.com, or * for all; may be repeated.",
        metavar="ORIGIN",
    ),
]
LogFormat = Annotated[
    Literal["json", "text"], typer.Option(help="How the log on stderr is written; each request is a line of it.")
]


def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    metrics_host: MetricsHost = "127.0.0.1",
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
    format: Format = "auto",
    device: Device = None,
    workers: Workers = None,
    threads: Threads = None,
    batch_size: BatchSize = None,
    max_batch_delay: MaxBatchDelay = None,
    token_file: TokenFile = None,
    expect: Digests = None,
    max_body_mb: MaxBody = 16.0,
    request_seconds: RequestSeconds = 60.0,
    lame_duck: LameDuck = 0.0,
    drain_seconds: DrainSeconds = 30.0,
    cors_origin: Origins = None,
    log_format: LogFormat = "text",
) -> None:
    """Serve models with TorchServe; says that it is ready once their golden requests have come back right.

    What isn't given of workers, threads and batches is left to an archive, which says it, or to this machine.
    Ends on Ctrl-C (exit 0) and SIGTERM (exit 143): it answers what came in before, and takes all processes down.
    """
    from trainyard.artifacts.manifest import check_digests
    from trainyard.gateway.bodies import Limits
    from trainyard.gateway.cors import check_origins
    from trainyard.torchserve.server import Options
    from trainyard.torchserve.server import serve as run_server
    from trainyard.torchserve.settings import Settings

    chosen = Settings.chosen(
        format=format, device=device, workers=workers, threads=threads, batch_size=batch_size,
        max_batch_delay_ms=max_batch_delay,
    )  # fmt: skip
    options = Options(
        models=models,
        chosen=chosen,
        expect=tuple(sorted(check_digests(expect or ""))),
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=(METRICS_PORT if port else 0) if metrics_port is None else metrics_port,
        token_file=token_file,
        lame_duck=lame_duck,
        drain_seconds=drain_seconds,
        request_seconds=request_seconds,
        origins=check_origins(cors_origin or ()),
        limits=Limits.of(int(max_body_mb * 1e6)),
        log_format=log_format,
        as_json=as_json,
    )
    raise typer.Exit(run_server(options))
