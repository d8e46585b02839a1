"""The verb that times a model's formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainyard.cli.app import Expect, Run


def benchmark(
    run: Run,
    formats: Annotated[str | None, typer.Option(help="The formats to time, as in onnx,aoti; all by default.")] = None,
    batch_sizes: Annotated[str, typer.Option(help="Examples of a call.")] = "1,8,32",
    threads: Annotated[str | None, typer.Option(help="Threads of a call; 1 and one for each core by default.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens to bring each text to; by default as they are.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For each batch size and thread count.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="The folder to write to; benchmarks/<timestamp> by default.")] = None,
    expect: Expect = None,
) -> None:
    """Time the formats of the newest export, on the CPU, side by side: latency and throughput of the model alone.

    Writes benchmark.json, benchmark.md and benchmark.png, and prints their folder as its last line on stdout.
    """
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.base.cpu import this_cpu
    from trainyard.formats.table import parse_formats

    names = parse_formats(formats, with_eager=True) if formats is not None else None
    from trainyard.report.benchmark import print_benchmark, write_benchmark
    from trainyard.verify.benchmark import Plan, check_plan, choose_folder, parse_numbers, run_benchmark

    sizes = parse_numbers("--batch-sizes", batch_sizes)
    counts = parse_numbers("--threads", f"1,{this_cpu().cores}" if threads is None else threads)
    plan = Plan(names, sizes, counts, length, seconds)
    opened = open_trusted(run, expect=expect)
    check_plan(plan, opened)
    folder = choose_folder(opened.bundle, out)
    measured = run_benchmark(plan, opened)
    write_benchmark(measured, folder)
    print_benchmark(measured)
    print(folder)
