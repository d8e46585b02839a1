"""The verb that makes a model."""

from __future__ import annotations

import sys

import typer

from trainyard.cli.app import Config, Overrides


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
    from trainyard.training.processes import is_muted, mute_other_ranks
    from trainyard.training.run import train as run_training

    mute_other_ranks()
    run = run_training(experiment)
    metrics = run / "metrics.json"
    if metrics.is_file() and not is_muted():
        print(metrics.read_text(encoding="utf-8"), file=sys.stderr, end="")
    print(run)
