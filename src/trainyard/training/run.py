"""``trainyard train``: from a config to a sealed bundle, as a list of steps."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainyard.base.errors import UsageError
from trainyard.base.files import write_json
from trainyard.config.data import ImagesConfig
from trainyard.config.experiment import Experiment
from trainyard.data.encoded import EncodedSplit, encode_split, loader_workers
from trainyard.data.load import load_dataset
from trainyard.data.records import Dataset
from trainyard.data.report import log_findings
from trainyard.models.base import Task
from trainyard.training.agreement import check_same_job
from trainyard.training.augment import Augmentation, Mixing
from trainyard.training.finish import Trained, finish
from trainyard.training.loop import TrainingLoop
from trainyard.training.misclassified import WrongExamples
from trainyard.training.module import ClassifierModule
from trainyard.training.observers import MetricsCsv, Terminal, Trackers, make_loggers
from trainyard.training.preflight import preflight
from trainyard.training.presets import Profiler, apply_data_preset, apply_preset
from trainyard.training.processes import is_muted, leave_processes, start_fabric
from trainyard.training.reports import Observer
from trainyard.training.runs import CHECKPOINTS, DATA_REPORT, find_run, has_same_data, new_run

if TYPE_CHECKING:
    from lightning.fabric import Fabric

log = logging.getLogger(__name__)


def train(experiment: Experiment) -> Path:
    """Trains, evaluates and seals; returns the run folder.

    Raises:
        UsageError: the config doesn't fit this machine, the data or the model.
        DataError: the data can't be used.
        TrainyardError: training failed; the last good checkpoint is kept.
    """
    experiment = apply_preset(experiment)
    preflight(experiment)
    fabric = start_fabric(experiment.trainer)
    resumed = find_run(experiment) if fabric.is_global_zero else None
    dataset = apply_data_preset(experiment, load_dataset(experiment.data, experiment.seed))
    log_findings(dataset.report.bad, dataset.report.warnings)
    check_same_job(experiment, dataset)
    preprocessor = experiment.model.preprocessor(experiment.data, dataset.splits["train"].items)
    task = Task(dataset.classes, preprocessor)
    train_split = encode_split(dataset.splits["train"], preprocessor, experiment.data, training=True)
    val_split = encode_split(dataset.splits["val"], preprocessor, experiment.data, training=False)
    module = build_module(experiment, task, train_split)

    run: Path = fabric.broadcast(_open_run(experiment, resumed, dataset) if fabric.is_global_zero else Path())
    trackers = Trackers(
        make_loggers(experiment, run) if fabric.is_global_zero else [],
        experiment.trainer.log_every,
        task.labels,
        WrongExamples(dataset.splits["val"], task.labels),
    )
    with trackers:
        loop = fit(fabric, experiment, module, dataset, train_split, val_split, run, trackers)
        # A sharded network stays sharded; what is sealed is one of the same architecture.
        classifier = module.classifier if experiment.trainer.strategy == "ddp" else experiment.model.build(task)
        loop.load_kept_weights(classifier.network)
        leave_processes()
        if fabric.is_global_zero:
            facts = _training_facts(loop, experiment)
            trained = Trained(experiment, dataset, task, classifier, val_split, facts, fabric.device)
            metrics = finish(run, trained)
            trackers.log_result(experiment, metrics["test"])  # type: ignore[arg-type]
    return run


def _open_run(experiment: Experiment, resumed: Path | None, dataset: Dataset) -> Path:
    """The run folder, on rank 0: the one to go on with, if it was started with this data, or a new one."""
    if resumed is not None and not has_same_data(
        resumed, dataset.fingerprint, explicit=experiment.trainer.resume not in (True, "auto")
    ):
        resumed = None
    run = resumed or new_run(experiment)
    write_json(run / DATA_REPORT, dataset.report.to_dict())
    return run


def build_module(experiment: Experiment, task: Task, train: EncodedSplit) -> ClassifierModule:
    """The model with its loss and augmentation; its initial weights follow from the seed."""
    torch.manual_seed(experiment.seed)
    classifier = experiment.model.build(task)
    if experiment.model.freeze == "backbone":
        classifier.freeze_backbone()
    if experiment.trainer.channels_last:
        classifier.network.to(memory_format=torch.channels_last)
    if experiment.trainer.compile:
        # In place, so that the weights keep their names (no "_orig_mod.").
        classifier.network.compile()
    data, weights = experiment.data, class_weights(experiment, train.labels, len(task.labels))
    if not isinstance(data, ImagesConfig):
        return ClassifierModule(classifier, experiment.optim, weights)
    augmentation = Augmentation(data, experiment.seed)
    mixing = Mixing(data.mixup, data.cutmix, experiment.seed)
    return ClassifierModule(classifier, experiment.optim, weights, augmentation, mixing)


def class_weights(experiment: Experiment, labels: np.ndarray, classes: int) -> Tensor | None:
    """Weight of each class in the loss, ``[classes] float32``; ``balanced`` has mean 1 over the training examples."""
    wanted = experiment.optim.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        # With data.limit a class may have no example.
        counts = np.bincount(labels, minlength=classes).clip(min=1)
        return torch.from_numpy(len(labels) / (classes * counts)).float()
    if len(wanted) != classes:
        raise UsageError(f"optim.class_weights has {len(wanted)} weights for {classes} classes; give one for each")
    return torch.tensor(wanted)


def fit(
    fabric: Fabric,
    experiment: Experiment,
    module: ClassifierModule,
    dataset: Dataset,
    train_split: EncodedSplit,
    val_split: EncodedSplit,
    run: Path,
    trackers: Trackers,
) -> TrainingLoop:
    """Trains until the end."""
    trainer = experiment.trainer
    terminal = Terminal(trainer.log_every)
    observers: list[Observer] = [] if is_muted() else [terminal]
    if fabric.is_global_zero:
        observers += [MetricsCsv(run), trackers]
        if trainer.preset == "profile":
            observers.append(Profiler(run / "profile"))
    loop = TrainingLoop(
        fabric,
        module,
        experiment,
        train_split,
        val_split,
        dataset.classes,
        run / CHECKPOINTS,
        observers,
        workers=loader_workers(train_split, experiment.data),
    )
    try:
        loop.run()
    finally:
        terminal.close()
    return loop


def _training_facts(loop: TrainingLoop, experiment: Experiment) -> dict[str, object]:
    progress = loop.progress
    return {
        "examples_per_second": round(loop.examples_per_second, 2),
        "seconds": round(progress.seconds, 3),
        "epochs": progress.epoch,
        "world_size": progress.world_size,
        "local_processes": int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        "steps": progress.step,
        "best_epoch": progress.best_epoch,
        "order": progress.order,
        "seed": experiment.seed,
        "config": experiment.model_dump(mode="json"),
    }
