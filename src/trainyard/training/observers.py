"""Where the figures of a run go: the terminal, ``metrics.csv``, TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from trainyard.artifacts.run import METRICS_CSV
from trainyard.base.errors import UsageError
from trainyard.base.files import write_text
from trainyard.config.experiment import Experiment
from trainyard.training.checkpoint import LAST, read_checkpoint
from trainyard.training.reports import Observer, StepReport, Validation
from trainyard.training.runs import CHECKPOINTS

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from rich.progress import TaskID

    from trainyard.training.misclassified import WrongExamples

log = logging.getLogger(__name__)

TENSORBOARD = "tensorboard"


class MetricsCsv:
    """Writes a row per epoch to ``metrics.csv``; a resumed run goes on with its rows.

    Args:
        folder: The run folder.
    """

    FIRST = ("epoch", "step", "train_loss", "lr", "examples_per_second", "val_loss", "val_accuracy")
    """Columns that come first, in this order; the other metrics follow as they come."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_CSV
        self.rows: list[dict[str, object]] = []
        if self.path.is_file():
            self.rows = list(csv.DictReader(self.path.read_text(encoding="utf-8").splitlines()))
        self.last: StepReport | None = None

    def on_step(self, report: StepReport) -> None:
        """Remembers the epoch's latest step."""
        self.last = report

    def on_validation(self, validation: Validation) -> None:
        """Writes the epoch's row; rows of epochs that are done again after a crash are replaced."""
        row: dict[str, object] = {"epoch": validation.epoch, "step": validation.step}
        if self.last is not None:  # else the run was stopped after the epoch's last step, and went on from there
            row |= {
                "train_loss": self.last.loss.item(),
                "lr": self.last.lr,
                "examples_per_second": round(self.last.examples_per_second, 2),
            }
        row |= {f"val_{name}": value for name, value in validation.scores.summary().items()}
        self.rows = [earlier for earlier in self.rows if int(str(earlier["epoch"])) < validation.epoch] + [row]
        text = io.StringIO()
        # A run that goes on may have another metric than before: its earlier rows then have none.
        columns = dict.fromkeys([*self.FIRST, *(name for row in self.rows for name in row)])
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


class Terminal:
    """Tells how far training is, in a line of 80 columns: under a bar on a terminal, now and then anew elsewhere.

    Args:
        log_every: Optimiser steps between plain lines.
    """

    def __init__(self, log_every: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.log_every = log_every
        # The last line of stdout is the run folder, for scripts; everything else goes to stderr.
        console = Console(stderr=True)
        columns = BarColumn(max(4, min(40, console.width - 72))), TextColumn("{task.description}", markup=False)
        self.bar = Progress(*columns, console=console, transient=True) if sys.stderr.isatty() else None
        self.task: TaskID | None = None
        self.first: tuple[int, float] | None = None
        self.loss = ""

    def on_step(self, report: StepReport) -> None:
        """Moves the bar, or prints a line at the first step and every ``log_every`` steps."""
        now = time.monotonic()
        is_due = self.first is None or report.step % self.log_every == 0
        self.first = self.first or (report.step, now)
        if is_due:  # reading the loss makes a GPU wait
            self.loss = f"loss {report.loss.item():.3f}"
        if self.bar is None:
            if is_due:
                log.info("%s", self._line(report, now))
            return
        if self.task is None:
            self.task = self.bar.add_task(self._line(report, now), total=report.total_steps)
            self.bar.start()
        self.bar.update(self.task, completed=report.step, description=self._line(report, now))

    def _line(self, report: StepReport, now: float) -> str:
        assert self.first is not None, "a step was told"
        first, since = self.first
        words = [
            f"epoch {report.epoch + 1}/{report.epochs}",
            f"step {report.step}/{report.total_steps}",
            self.loss,
            f"{report.examples_per_second:.0f} ex/s",
        ]
        if report.step > first:  # the first step may have compiled the model; validations so far are in the time
            seconds = (now - since) / (report.step - first) * (report.total_steps - report.step)
            words.append(f"{timedelta(seconds=round(seconds))} left".removeprefix("0:"))
        if report.best is not None:
            words.append(f"best {report.best:.4f}")
        return "  ".join(words)

    def on_validation(self, validation: Validation) -> None:
        """Prints the epoch's line."""
        scores = validation.scores
        own = "".join(f", {name} {value:.4f}" for name, value in scores.metrics.items())
        line = (
            f"epoch {validation.epoch}: validation accuracy {scores.accuracy:.4f}, macro-F1 {scores.macro_f1:.4f}, "
            f"loss {scores.loss:.4f}{own}{' (best)' if validation.improved else ''}"
        )
        if self.bar is None:
            log.info(line)
        else:  # above the bar, not into its line
            self.bar.console.print(line, highlight=False)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.stop()


class Trackers:
    """Sends scalars to every tracker that the config names, and pictures to TensorBoard.

    Used as a context manager; the trackers are closed at the end, also of a run that failed. The pictures are of the
    latest validation and are drawn then: a figure takes as long as an epoch of a small model.

    Args:
        loggers: Lightning's loggers.
        log_every: Optimiser steps between two points of the training curves.
        classes: Names of the classes.
        show_wrong: Adds wrongly classified examples to TensorBoard.
    """

    def __init__(
        self, loggers: Sequence[Logger], log_every: int, classes: Sequence[str], show_wrong: WrongExamples
    ) -> None:
        self.loggers = loggers
        self.log_every = log_every
        self.classes = classes
        self.show_wrong = show_wrong
        self.latest: Validation | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        for logger in self.loggers:
            if self.latest is not None:
                self._show(logger, self.latest)
            _close(logger, succeeded=kind is None)

    def on_step(self, report: StepReport) -> None:
        """Logs loss, learning rate and speed every ``log_every`` steps."""
        if report.step % self.log_every == 0:
            values = {
                "train/loss": report.loss.item(),
                "lr": report.lr,
                "examples_per_second": report.examples_per_second,
            }
            self._log(values, report.step)

    def on_validation(self, validation: Validation) -> None:
        """Logs the scores."""
        values = {f"val/{name}": value for name, value in validation.scores.summary().items()}
        self._log(values | {"epoch": float(validation.epoch)}, validation.step)
        self.latest = validation

    def log_result(self, experiment: Experiment, test: Mapping[str, float]) -> None:
        """Logs the hyper-parameters with the test metrics."""
        metrics = {f"test/{name}": value for name, value in test.items()}
        for logger in self.loggers:
            _log_hyperparameters(logger, experiment, metrics)

    def _show(self, logger: Logger, validation: Validation) -> None:
        """Adds the confusion matrix and wrong examples, where the tracker is TensorBoard."""
        from lightning.pytorch.loggers import TensorBoardLogger
        from PIL import Image

        from trainyard.report.figures import confusion_matrix, drawn

        if isinstance(logger, TensorBoardLogger):
            picture = Image.open(io.BytesIO(drawn(confusion_matrix(validation.scores, self.classes), "png")))
            pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image("val/confusion_matrix", pixels, validation.step, dataformats="HWC")
            self.show_wrong(logger.experiment, validation)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(dict(values), step)


def _log_hyperparameters(logger: Logger, experiment: Experiment, metrics: dict[str, float]) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    parameters = experiment.model_dump(mode="json")
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(parameters, metrics)
        return
    logger.log_hyperparams(parameters)
    logger.log_metrics(metrics)


def _close(logger: Logger, succeeded: bool) -> None:
    from lightning.pytorch.loggers import WandbLogger

    logger.finalize("success" if succeeded else "failed")
    if isinstance(logger, WandbLogger):
        import wandb

        wandb.finish(exit_code=0 if succeeded else 1)  # Lightning leaves its run open


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that aren't installed, before anything is started.

    Raises:
        UsageError: a tracker's package isn't there.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # A folder `wandb` in the working directory has a spec, too, but no file of its own.
        if spec is None or spec.origin is None:
            raise UsageError(f"trainer.loggers names {name}, which isn't installed: pip install {name}")


def make_loggers(experiment: Experiment, run: Path) -> list[Logger]:
    """Lightning's loggers for the names in ``trainer.loggers``."""
    return [_make_logger(name, experiment, run) for name in experiment.trainer.loggers]


def _make_logger(name: str, experiment: Experiment, run: Path) -> Logger:
    from lightning.pytorch import loggers

    match name:
        case "mlflow":
            # MLFLOW_TRACKING_URI, if it is set, says where to; else a folder, which newer MLflows want to be allowed.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            folder = str((experiment.out / "mlruns").absolute())
            logger: object = loggers.MLFlowLogger(experiment.name, run_name=run.name, save_dir=folder)
        case "wandb":
            logger = loggers.WandbLogger(project=experiment.name, name=run.name, save_dir=str(run))
        case _:
            # What a crashed run logged after its last checkpoint is logged again.
            purge = _steps_done(run) + 1
            logger = loggers.TensorBoardLogger(
                str(run), name="", version=TENSORBOARD, default_hp_metric=False, purge_step=purge
            )
    return cast("Logger", logger)


def _steps_done(run: Path) -> int:
    checkpoint = run / CHECKPOINTS / LAST
    return cast(int, read_checkpoint(checkpoint)["progress"]["step"]) if checkpoint.is_file() else 0


__all__ = ["MetricsCsv", "Observer", "Terminal", "Trackers", "check_trackers", "make_loggers"]
