"""The presets for debugging go through the whole run, with few steps, in a folder of their own."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment
from trainyard.config.load import load_experiment
from trainyard.data.load import load_dataset
from trainyard.training.presets import PROFILED_STEPS, Profiler, apply_data_preset, apply_preset
from trainyard.training.reports import StepReport

from my_project.train import train

DigitsExperiment = Callable[..., Experiment]


def rows(run: Path) -> Sequence[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_dry_run_goes_through_everything_with_few_batches(digits_experiment: DigitsExperiment) -> None:
    run = train(digits_experiment(trainer={"preset": "dry_run", "max_epochs": 9}, data={"limit": None}))

    assert run.parent.name == "digits-dry_run"
    assert [row["step"] for row in rows(run)] == ["3"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["train"]["epochs"] == 1
    facts = Bundle.open(run).facts
    report = facts.data.report["classes"]
    assert isinstance(report, dict)
    assert sum(counts["test"] for counts in report.values()) == 3 * 16


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_overfit_batch_learns_its_batch_by_heart(digits_experiment: DigitsExperiment, smoothing: float) -> None:
    optim = {"label_smoothing": smoothing}
    run = train(digits_experiment(optim=optim, trainer={"preset": "overfit_batch", "patience": 1}))

    last = rows(run)[-1]
    assert run.parent.name == "digits-overfit_batch"
    assert float(last["train_loss"]) < 0.01
    assert float(last["val_accuracy"]) == 1.0
    assert int(last["step"]) == int(last["epoch"]), "one batch makes an epoch"


def test_overfit_batch_takes_one_batch_from_all_over_the_split(digits_experiment: DigitsExperiment) -> None:
    experiment = digits_experiment(trainer={"preset": "overfit_batch"})
    dataset = load_dataset(experiment.data, experiment.seed)
    train_split = dataset.splits["train"]
    by_class = replace(dataset, splits={**dataset.splits, "train": train_split.select(train_split.labels.argsort())})

    small = apply_data_preset(experiment, by_class)

    assert len(small.splits["train"]) == experiment.data.batch_size
    assert len(set(small.splits["train"].labels.tolist())) > 5
    assert small.splits["val"] is small.splits["train"]
    assert small.splits["test"] is dataset.splits["test"]
    assert apply_data_preset(digits_experiment(), dataset) is dataset


def test_profile_writes_a_trace(digits_experiment: DigitsExperiment) -> None:
    run = train(digits_experiment(trainer={"preset": "profile"}))

    (file,) = (run / "profile").glob("*.pt.trace.json")
    names = {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}
    assert "aten::convolution" in names
    assert any("Optimizer.step" in str(name) for name in names)


def test_profile_of_too_few_steps_says_so(tmp_path: Path) -> None:
    report = StepReport(1, PROFILED_STEPS - 1, 0, torch.tensor(0.0), 0.1, 1.0, 1, None)

    with pytest.raises(UsageError, match=f"needs {PROFILED_STEPS} steps .* smaller data.batch_size"):
        Profiler(tmp_path).on_step(report)


def test_accumulated_batches_and_processes_are_reckoned_with(
    digits_experiment: DigitsExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    experiment = apply_preset(digits_experiment(trainer={"preset": "dry_run", "accumulate": 4}))

    assert experiment.data.limit == 3 * 16 * 4 * 2


def test_no_preset_changes_nothing(digits_experiment: DigitsExperiment) -> None:
    experiment = digits_experiment()

    assert apply_preset(experiment) is experiment


def test_the_config_of_a_preset_can_be_run_again(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    run = train(digits_experiment(trainer={"preset": "dry_run"}))

    assert load_experiment(run / "config.yaml").data.limit == 3 * 16
