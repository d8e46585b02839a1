"""What would end a run after its last epoch ends it before the first, and the rehearsal leaves nothing behind."""

from __future__ import annotations

import copy
import logging
import os
import random
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import models
from toy.train import Config, Task, train

from trainyard.artifacts.manifest import sha256_file
from trainyard.base.errors import DataError, TrainyardError, UsageError
from trainyard.base.project import Project
from trainyard.data.encoded import encode_split
from trainyard.doctor import check_rehearsal
from trainyard.evaluation.metrics import measure
from trainyard.models.image import Parts
from trainyard.report import filling
from trainyard.training import finish
from trainyard.training.processes import start_fabric
from trainyard.training.run import Run, build_model

DigitsExperiment = Callable[..., Config]
Usage = namedtuple("Usage", "total used free")


def prepared(config: Config) -> SimpleNamespace:
    """A run up to its rehearsal, and the arguments of that."""
    run = Run(start_fabric(config.trainer), config)
    dataset = run.load_data()
    preprocessor = config.model.preprocessor(config.data, dataset.splits["train"].items)
    splits = [
        encode_split(dataset.splits[name], preprocessor, config.data, name == "train") for name in ("train", "val")
    ]
    task = Task(build_model(config, dataset.classes, preprocessor), config.optim)
    return SimpleNamespace(run=run, dataset=dataset, preprocessor=preprocessor, task=task, splits=splits)


def rehearse(config: Config) -> None:
    made = prepared(config)
    made.run.rehearse(made.dataset, made.preprocessor, made.task, *made.splits)


@pytest.fixture
def texts_experiment(tmp_path: Path, digits_experiment: DigitsExperiment) -> Config:
    """A transformer with dropout."""
    data = {
        "kind": "texts",
        "path": "embedded:tickets",
        "limit": 100,
        "max_length": 32,
        "cache": str(tmp_path / "cache"),
    }
    tree = digits_experiment(optim={"name": "adamw", "lr": 1e-3}).model_dump()
    return Config.model_validate(tree | {"data": data, "model": {"kind": "encoder", "vocab_size": 300}})


@pytest.mark.parametrize("mistake", ["{{ nmae }}", "{{ surest[0].lable }}"])
def test_a_mistake_in_the_reports_template_is_one_sentence_before_the_training(
    mistake: str, digits_experiment: DigitsExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "find_project", lambda: Project("trainyard", templates=str(tmp_path)))
    own = '{% extends "trainyard/report.html.j2" %}\n{% block more %}{{ surest[0].label }}MISTAKE{% endblock %}\n'
    file = tmp_path / "report.html.j2"
    file.write_text(own.replace("MISTAKE", ""))
    made = prepared(digits_experiment())
    made.run.rehearse(made.dataset, made.preprocessor, made.task, *made.splits)
    file.write_text(own.replace("MISTAKE", mistake))
    with pytest.raises(UsageError, match=r"the report's template has a mistake in .*html.j2, line 2: ") as raised:
        made.run.rehearse(made.dataset, made.preprocessor, made.task, *made.splits)
    assert "\n" not in str(raised.value)


def test_nothing_is_changed(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    made = prepared(digits_experiment(optim={"ema": 0.9}, trainer={"accumulate": 2, "threads": 2}))
    weights = copy.deepcopy(made.task.state_dict())
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    files, threads = sorted(tmp_path.rglob("*")), torch.get_num_threads()

    made.run.rehearse(made.dataset, made.preprocessor, made.task, *made.splits)

    assert all(torch.equal(tensor, weights[name]) for name, tensor in made.task.state_dict().items())
    assert all(parameter.grad is None for parameter in made.task.parameters())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.random.get_state()[1].tolist() == generators[1]
    assert random.getstate() == generators[2]
    assert sorted(tmp_path.rglob("*")) == files
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_run_ends_with_the_same_weights_as_without_it(
    kind: str, digits_experiment: DigitsExperiment, texts_experiment: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = digits_experiment() if kind == "images" else texts_experiment
    rehearsed = train(config)
    monkeypatch.setattr(Run, "rehearse", lambda *_: None)
    plain = train(config)

    names = ("bundle/model.safetensors", "checkpoints/last.ckpt")
    assert rehearsed != plain
    assert sha256_file(rehearsed / names[0]) == sha256_file(plain / names[0])
    one, other = (torch.load(run / names[1], weights_only=True) for run in (rehearsed, plain))
    assert one["progress"]["order"] == other["progress"]["order"]


def test_a_batch_of_one_names_the_key(digits_experiment: DigitsExperiment) -> None:
    small = {"kind": "torchvision", "name": "shufflenet_v2_x0_5"}
    config = digits_experiment(data={"image_size": 32, "batch_size": 1}, model=small)

    with pytest.raises(UsageError, match=r"data\.batch_size is too small for the network's batch norm, set 2 or more"):
        train(config)

    assert not (config.out / config.name).exists()


def test_a_disk_without_room_for_the_bundle(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 90_000, 90_000))

    with pytest.raises(UsageError, match=r"needs at least 0\.\d MB for its bundle and checkpoints, .* 0.1 MB.*out="):
        rehearse(digits_experiment())


def test_an_output_layer_that_is_not_found(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assemble(self: object, size: int, classes: int) -> Parts:
        network = models.Cnn(classes)
        return Parts(network, [network.fc, network.bn1])

    monkeypatch.setattr(models.CnnConfig, "assemble", assemble)

    with pytest.raises(UsageError, match="the last stage of Cnn holds no"):
        rehearse(digits_experiment())


def test_what_cannot_be_saved_is_told_with_its_cause(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise TypeError("an object isn't JSON\nnor YAML")

    monkeypatch.setattr("trainyard.models.classifier.Classifier.save_config", save)

    reason = "the rehearsal of sealing the bundle failed: TypeError: an object isn't JSON; --debug"
    with pytest.raises(TrainyardError, match=reason) as failure:
        rehearse(digits_experiment())
    assert isinstance(failure.value.__cause__, TypeError)
    assert failure.value.exit_code == 1


def test_an_optimizer_whose_state_cannot_be_saved(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            super().step()
            for state in self.state.values():
                state["closure"] = lambda: None

    monkeypatch.setattr("toy.train.SGD", Odd)

    with pytest.raises(TrainyardError, match="the rehearsal of saving a checkpoint failed"):
        rehearse(digits_experiment())


def test_a_class_whose_name_is_not_unicode(digits_experiment: DigitsExperiment) -> None:
    made = prepared(digits_experiment())
    odd = replace(made.dataset, classes=("caf\udce9", *made.dataset.classes[1:]))

    with pytest.raises(DataError, match="a name that isn't Unicode"):
        made.run.rehearse(odd, made.preprocessor, made.task, *made.splits)


class Forgetful(models.Cnn):
    """Its answers depend on what no state holds."""

    made = 0

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        Forgetful.made += 1
        self.factor = 10 * Forgetful.made

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self.factor


def test_a_model_that_cannot_be_restored_from_its_weights(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "Cnn", Forgetful)

    with pytest.raises(TrainyardError, match="the model isn't the same once it was sealed and opened"):
        rehearse(digits_experiment())


def test_a_metric_that_needs_more_than_a_few_examples_is_no_reason_to_refuse(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def demanding(head: object, logits: torch.Tensor, labels: torch.Tensor, classes: object) -> object:
        seen.append(len(labels))
        if len(labels) < 9:
            raise ZeroDivisionError
        return measure(head, logits, labels, classes)  # type: ignore[arg-type]

    monkeypatch.setattr(finish, "measure", demanding)

    rehearse(digits_experiment(data={"limit": 200}))
    assert seen[0] <= 4 < 9 <= seen[-1]


def test_a_model_that_cannot_be_copied_is_trained_all_the_same(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Computed(models.Cnn):
        def __init__(self, classes: int) -> None:
            super().__init__(classes)
            self.double = self.fc.weight * 2

    monkeypatch.setattr(models, "Cnn", Computed)

    with caplog.at_level(logging.WARNING, "trainyard"):
        rehearse(digits_experiment())
    assert "the run isn't rehearsed: its model can't be copied" in caplog.text


def test_weights_that_diverge_at_once(digits_experiment: DigitsExperiment) -> None:
    with pytest.raises(TrainyardError, match=r"not finite .* train again with a lower optim\.lr"):
        rehearse(digits_experiment(optim={"lr": 1e38}))


def test_a_frozen_model_and_one_example_of_a_split(digits_experiment: DigitsExperiment) -> None:
    rehearse(digits_experiment(data={"limit": 3}, model={"freeze": "backbone"}))


# The doctor


def test_the_doctor_rehearses_the_projects_run_and_leaves_no_file(digits_experiment: DigitsExperiment) -> None:
    config = digits_experiment()
    [check] = check_rehearsal(config)

    assert (check.name, check.status) == ("rehearsal", "ok")
    assert not config.out.exists()


def test_the_doctor_tells_what_the_rehearsal_found(digits_experiment: DigitsExperiment) -> None:
    small = {"kind": "torchvision", "name": "shufflenet_v2_x0_5"}
    [check] = check_rehearsal(digits_experiment(data={"image_size": 32, "batch_size": 1}, model=small))

    assert check.status == "error"
    assert "data.batch_size" in check.detail


def test_the_doctor_trains_nothing_where_a_project_does_not_rehearse(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "rehearse", lambda *_: None)
    config = digits_experiment()
    check_rehearsal(config)

    assert not config.out.exists()


# Many processes


@pytest.mark.slow
@pytest.mark.parametrize(("size", "code"), [(1, 2), (16, 0)])
def test_two_processes_rehearse_and_none_waits_for_one_that_failed(size: int, code: int, tmp_path: Path) -> None:
    words = ["data.image_size=32", "data.limit=64", f"data.batch_size={size}", "model.kind=torchvision",
             "model.name=shufflenet_v2_x0_5", "trainer.max_epochs=1", "trainer.loggers=[]", "trainer.threads=1",
             f"out={tmp_path}/runs", f"data.cache={tmp_path}/cache"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "trainyard", "train", str(Path(models.__file__).parent / "digits.yaml"), *words],
        text=True, capture_output=True, timeout=200, check=False, env={**os.environ, "NPROC": "2"},
    )  # fmt: skip

    assert done.returncode == code, done.stderr
    assert code == 0 or "data.batch_size is too small" in done.stderr
    assert not list(tmp_path.rglob(".rehearsal*"))
