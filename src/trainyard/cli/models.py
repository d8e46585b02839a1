"""The verbs that make a model and measure it: train, config, evaluate, export, benchmark, doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainyard.base.errors import EXIT_REFUSED, UsageError
from trainyard.cli.app import FORMATS, Config, Expect, Overrides, Run, app, check_format


@app.command()
def train(config: Config, overrides: Overrides = None) -> None:
    """Train a classifier, score it on the test split, and seal it into a bundle.

    Prints the run folder as its last line on stdout. With several GPUs, or NPROC=2, it runs in as many processes.
    """
    from trainyard.config.load import load_experiment
    from trainyard.training.launch import end_with_launcher, launch, needs_launch

    end_with_launcher()
    from trainyard.training.processes import check_hardware, is_muted, mute_other_ranks

    experiment = load_experiment(config, overrides or [])
    if needs_launch(experiment.trainer):
        check_hardware(experiment.trainer)
        raise typer.Exit(launch(["train", str(config), *(overrides or [])], experiment.trainer))
    from trainyard.training.run import train as run_training

    mute_other_ranks()
    run = run_training(experiment)
    metrics = run / "metrics.json"
    if metrics.is_file() and not is_muted():
        print(metrics.read_text(encoding="utf-8"), file=sys.stderr, end="")
    print(run)


@app.command()
def config(
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as in configs/.", metavar="CONFIG")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a config instead.")] = False,
) -> None:
    """Print the resolved config: every key with its value, after the file, the environment and the overrides."""
    from trainyard.config.load import dump_yaml, load_experiment
    from trainyard.config.schema import json_schema

    if schema:
        print(json.dumps(json_schema(), indent=2))
    elif config is None:
        raise UsageError("give a CONFIG file, or --schema")
    else:
        print(dump_yaml(load_experiment(config, overrides or [])), end="")


@app.command()
def evaluate(
    run: Run,
    overrides: Overrides = None,
    format: Annotated[
        str, typer.Option(callback=check_format, metavar=FORMATS, help="Which of the model's formats to score.")
    ] = "eager",
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    expect: Expect = None,
) -> None:
    """Score a bundle, or a format of its newest export, on its own test split or on other data (data.path=..., ...)."""
    from trainyard.config.experiment import TrainerConfig
    from trainyard.training.launch import end_with_launcher, launch, needs_launch

    end_with_launcher()
    trainer = TrainerConfig(devices="auto" if format == "eager" else "cpu")
    if needs_launch(trainer):
        if format != "eager":
            raise UsageError(f"{format} is scored by one process: leave out NPROC and NNODES, which are for eager")
        options = [*(["--json"] if as_json else []), *([f"--expect={expect}"] if expect else [])]
        raise typer.Exit(launch(["evaluate", str(run), *(overrides or []), *options], trainer))
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.evaluation.evaluate import evaluate as score_bundle
    from trainyard.evaluation.evaluate import evaluate_format
    from trainyard.report.terminal import print_scores
    from trainyard.training.processes import join_processes, mute_other_ranks

    mute_other_ranks()
    opened = open_trusted(run, format, expect=expect)
    if format == "eager":
        with join_processes() as device:
            scores = score_bundle(opened.bundle, overrides or [], device)
    else:
        scores = evaluate_format(opened, format, overrides or [])
    if as_json:
        export_id = opened.export.facts.id if opened.export else None
        names = {"bundle": opened.bundle.digest, "export": export_id, "format": format}
        print(json.dumps({**names, **scores.to_dict()}, indent=2))
    else:
        print_scores(scores)


@app.command()
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
    """
    from trainyard.artifacts.bundle import Bundle
    from trainyard.base.signals import exit_on_sigterm
    from trainyard.formats.table import parse_formats

    exit_on_sigterm()
    names = parse_formats(formats) if formats is not None else None
    bundle = Bundle.open(run)
    from trainyard.report.export import print_export
    from trainyard.verify.export import Options
    from trainyard.verify.export import export as export_bundle
    from trainyard.verify.gate import Gate

    options = Options(names, threads, Gate(metric_share=gate), allow_refused)
    made = export_bundle(bundle, options, overrides or [])
    print_export(made.facts)
    print(made.path)
    if not allow_refused and any(row.status == "refused" for row in made.facts.formats):
        raise typer.Exit(EXIT_REFUSED)


@app.command()
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


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="Also check this config's data.", metavar="CONFIG")] = None,
    overrides: Overrides = None,
) -> None:
    """Check this machine, and a config's data, without training; each finding comes with its fix."""
    from rich.console import Console

    from trainyard.config.load import load_experiment
    from trainyard.doctor import check_data, check_machine, check_start, exit_code, render

    if config is None:
        checks = check_machine()
    else:
        experiment = load_experiment(config, overrides or [])
        checks = check_machine((experiment.out, Path(experiment.data.cache)))
        checks += check_start(experiment) + check_data(experiment)
    Console().print(render(checks))
    raise typer.Exit(exit_code(checks))
