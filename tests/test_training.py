"""A model that can't learn one batch by heart will learn nothing: its loss, its network or its optimiser is wrong."""

from __future__ import annotations

import csv

import numpy as np
import torch

from trainyard.data.encoded import encode_split
from trainyard.data.loader import Batch
from trainyard.data.records import Dataset
from trainyard.training.run import build_model

from my_project.train import Config, make_task, train


def test_one_batch_is_learnt_by_heart(experiment: Config) -> None:
    trainer = experiment.trainer.model_copy(update={"preset": "overfit_batch"})
    run = train(experiment.model_copy(update={"trainer": trainer}))

    *_, last = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    assert float(last["train_loss"]) < 0.1
    assert float(last["val_accuracy"]) == 1.0


def test_every_weight_has_a_gradient(experiment: Config, dataset: Dataset) -> None:
    records = dataset.splits["train"].select(np.arange(8))
    preprocessor = experiment.model.preprocessor(experiment.data, dataset.splits["train"].items)
    split = encode_split(records, preprocessor, experiment.data, training=True)
    task = make_task(
        experiment, build_model(experiment, dataset.classes, preprocessor), split.labels, len(dataset.classes)
    )
    inputs = {name: torch.from_numpy(array) for name, array in split.batch(np.arange(8)).items()}

    task.training_loss(Batch(inputs, torch.from_numpy(split.labels), torch.arange(8)), epoch=0).backward()

    forgotten = [name for name, weight in task.model.network.named_parameters() if weight.grad is None]
    assert forgotten == [], "the network's forward doesn't use them, and many processes would wait for them in vain"
