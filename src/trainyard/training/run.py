"""The steps of a run that are alike in every project: its folder, its data, who is told of it, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainyard.artifacts.run import DATA_REPORT
from trainyard.base.files import write_json
from trainyard.config.experiment import Experiment
from trainyard.data.encoded import EncodedSplit, loader_workers
from trainyard.data.load import load_dataset
from trainyard.data.records import Dataset
from trainyard.data.report import log_findings
from trainyard.evaluation.threshold import check_enough
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier
from trainyard.preprocess.base import Preprocessor
from trainyard.report.html import write_report
from trainyard.training.agreement import check_same_job
from trainyard.training.finish import Trained, finish
from trainyard.training.loop import TrainingLoop
from trainyard.training.misclassified import WrongExamples
from trainyard.training.observers import MetricsCsv, Terminal, Trackers, make_loggers
from trainyard.training.presets import Profiler, apply_data_preset
from trainyard.training.processes import is_muted, leave_processes
from trainyard.training.rehearsal import Rehearsal, end_if_only_rehearsed
from trainyard.training.reports import Observer
from trainyard.training.runs import CHECKPOINTS, find_run, has_same_data, new_run
from trainyard.training.task import TrainingTask

if TYPE_CHECKING:
    from lightning.fabric import Fabric

log = logging.getLogger(__name__)


def build_model(experiment: Experiment, classes: tuple[str, ...], preprocessor: Preprocessor) -> Classifier:
    """The config's model, laid out, frozen and compiled as it says; its initial weights follow from the seed.

    Raises:
        UsageError: its name is unknown, or its pretrained weights can't be found or don't fit.
    """
    torch.manual_seed(experiment.seed)
    model = experiment.model.build(Task(classes, preprocessor))
    if experiment.model.freeze == "backbone":
        model.freeze_backbone()
    if experiment.trainer.channels_last:
        model.network.to(memory_format=torch.channels_last)
    if experiment.trainer.compile:
        # Its advice about TF32 is for those who call torch themselves; here trainer.precision decides.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        # In place, so that the weights keep their names (no "_orig_mod.").
        model.network.compile()
    return model


class Run:
    """One training, new or gone on with. What needs care when there are several processes is done here.

    Args:
        fabric: The processes of the job.
        experiment: The config.

    Raises:
        UsageError: ``trainer.resume`` names a run that can't be gone on with.
    """

    folder: Path
    """``<out>/<name>/<timestamp>``, the same in every process; there from ``opened`` on."""

    def __init__(self, fabric: Fabric, experiment: Experiment) -> None:
        self.fabric, self.experiment = fabric, experiment
        # Looked for before the data is read: that may take long.
        self._resumed = find_run(experiment) if fabric.is_global_zero else None

    def load_data(self) -> Dataset:
        """Reads the data, says what is odd about them, and makes sure that all processes have the same.

        Raises:
            UsageError: the config doesn't fit the data, or the processes differ.
            DataError: the data can't be used.
        """
        experiment = self.experiment
        log.info("reading the data")
        dataset = apply_data_preset(experiment, load_dataset(experiment.data, experiment.seed))
        log_findings(dataset.report.bad, dataset.report.warnings, dataset.report.notes)
        check_same_job(experiment, dataset)
        target = experiment.evaluation.target_accuracy
        if target is not None and experiment.trainer.preset == "none":
            check_enough(len(dataset.splits["val"]), target)
        return dataset

    def rehearse(
        self,
        dataset: Dataset,
        preprocessor: Preprocessor,
        task: TrainingTask,
        train: EncodedSplit,
        val: EncodedSplit,
    ) -> None:
        """Tries on a copy of the model all that the run needs up to its end; see ``Rehearsal``.

        A run that is gone on with is rehearsed, too: the machine, the packages or the free space may be others now.

        Raises:
            UsageError, DataError, TrainyardError: something would fail; most say which key to change.
        """
        described = Task(dataset.classes, preprocessor)
        resumed = self._resumed is not None
        Rehearsal(self.fabric, self.experiment, dataset, described, task, train, val, resumed).perform()

    @contextlib.contextmanager
    def opened(self, dataset: Dataset, preprocessor: Preprocessor) -> Iterator[None]:
        """The time in which the run has its folder and reports there; trackers are closed also when it fails."""
        end_if_only_rehearsed()
        self._dataset, self._task = dataset, Task(dataset.classes, preprocessor)
        self.folder = self.fabric.broadcast(self._open_folder() if self.fabric.is_global_zero else Path())
        trainer = self.experiment.trainer
        loggers = make_loggers(self.experiment, self.folder) if self.fabric.is_global_zero else []
        wrong = WrongExamples(dataset.splits["val"], dataset.classes)
        with Trackers(loggers, trainer.log_every, dataset.classes, wrong) as self._trackers:
            yield

    def fit(self, task: TrainingTask, train: EncodedSplit, val: EncodedSplit) -> TrainingLoop:
        """Trains until the end, from the last checkpoint if the run is gone on with.

        Raises:
            TrainyardError: the loss or the weights aren't finite; the last good checkpoint is kept.
            SystemExit: SIGTERM came; a checkpoint was written, the code is 143.
        """
        terminal = Terminal(self.experiment.trainer.log_every)
        observers: list[Observer] = [] if is_muted() else [terminal]
        if self.fabric.is_global_zero:
            observers += [MetricsCsv(self.folder), self._trackers]
            if self.experiment.trainer.preset == "profile":
                observers.append(Profiler(self.folder / "profile"))
        loop = TrainingLoop(
            self.fabric,
            task,
            self.experiment,
            train,
            val,
            self._dataset.classes,
            self.folder / CHECKPOINTS,
            observers,
            workers=loader_workers(train, self.experiment.data),
        )
        with contextlib.closing(terminal):
            loop.run()
        return loop

    def finish(self, loop: TrainingLoop) -> None:
        """Seals the bundle and writes ``metrics.json``; done by one process, when the others have left."""
        # A sharded network stays sharded; what is sealed is one of the same architecture.
        sharded = self.experiment.trainer.strategy == "fsdp"
        model = self.experiment.model.build(self._task) if sharded else loop.task.model
        loop.load_kept_weights(model.network)
        leave_processes()
        if not self.fabric.is_global_zero:
            return
        trained = Trained(
            self.experiment, self._dataset, self._task, model, loop.val, loop.facts, self.fabric.device, loop.task.head
        )
        metrics = finish(self.folder, trained)
        self._trackers.log_result(self.experiment, metrics["test"])  # type: ignore[arg-type]
        log.info("the report: %s", write_report(self.folder))

    def _open_folder(self) -> Path:
        """The folder, on rank 0: that of the run to go on with, if it was started with this data, or a new one."""
        explicit = self.experiment.trainer.resume not in (True, "auto")
        folder = self._resumed
        if folder is None or not has_same_data(folder, self._dataset.fingerprint, explicit):
            folder = new_run(self.experiment)
        write_json(folder / DATA_REPORT, self._dataset.report.to_dict())
        return folder
