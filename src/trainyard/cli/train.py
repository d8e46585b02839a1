"""The verb that makes a model."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, cast

import typer

from trainyard.cli.app import Config, Overrides

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainyard.config.experiment import Experiment

log = logging.getLogger(__name__)


def train(config: Config, overrides: Overrides = None) -> None:
    """Train a classifier, score it on the test split, and seal it into a bundle.

    Prints the run folder as its last line on stdout. With several GPUs, or NPROC=2, it runs in as many processes.
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
    metrics = run / "metrics.json"
    if metrics.is_file() and not is_muted():
        print(metrics.read_text(encoding="utf-8"), file=sys.stderr, end="")
    print(run)
