"""The verb that scores a model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from trainyard.base.errors import UsageError
from trainyard.cli.app import FORMATS, Expect, Overrides, Run, check_format


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
        print(json.dumps({**names, **scores.to_dict(), **scores.summary()}, indent=2))
    else:
        print_scores(scores)
