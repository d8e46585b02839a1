"""The verb that makes a model."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
import yaml

from trainyard.artifacts.run import CONFIG, METRICS, REPORT
from trainyard.base.errors import EXIT_REFUSED
from trainyard.cli.app import Config, Overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainyard.config.experiment import Experiment

log = logging.getLogger(__name__)


def train(config: Config, overrides: Overrides = None) -> None:
    """Train a classifier, score it on the test split, and seal it into a bundle.

    Prints the run folder as its last line on stdout. Exits 3 if it gains less than trainer.min_gain over the baseline.
    With several GPUs, or NPROC=2, it runs in as many processes.
    """
    from trainyard.config.load import load_experiment, load_settings
    from trainyard.training.launch import end_with_launcher, launch, needs_launch

    end_with_launcher()
    trainer = load_settings(config, overrides or []).trainer
    if needs_launch(trainer):
        raise typer.Exit(launch(["train", str(config), *(overrides or [])], trainer))
    experiment = load_experiment(config, overrides or [])
    from trainyard.base.project import require_project
    from trainyard.training.processes import is_muted, mute_other_ranks

    mute_other_ranks()
    log.info("loading PyTorch")
    project = require_project()
    train_project = cast("Callable[[Experiment], Path]", project.resolve(project.run))
    run = train_project(experiment)
    path = run / METRICS
    metrics = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not is_muted():
        print(metrics, file=sys.stderr, end="")
    print(run)
    if metrics and (refusal := _refusal(run, json.loads(metrics)["baseline"])):
        print(f"trainyard: {refusal}", file=sys.stderr)
        raise typer.Exit(EXIT_REFUSED)


def _refusal(run: Path, baseline: dict[str, Any]) -> str:
    """Why the run isn't good enough by ``trainer.min_gain``; empty if it is. Nothing of it is lost."""
    # As the run had it: a preset for debugging has none.
    min_gain = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))["trainer"]["min_gain"]
    if min_gain is None or baseline["gain"] >= min_gain:
        return ""
    return (
        f"the model gains {baseline['gain']:+.4f} of accuracy over {baseline['name']}, less than "
        f"trainer.min_gain={min_gain:g}: look into {run / REPORT} for what it gets wrong, or use the simple model"
    )
