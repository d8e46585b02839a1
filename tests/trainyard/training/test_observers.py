"""Where figures go: metrics.csv, the terminal, TensorBoard, MLflow, Weights & Biases. They are read back from there."""

from __future__ import annotations

import csv
import importlib
import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment, TrainerConfig
from trainyard.data.records import Records
from trainyard.heads.single_label import SingleLabel
from trainyard.preprocess.base import Item
from trainyard.training.checkpoint import FORMAT, LAST, Checkpoint, write_checkpoint
from trainyard.training.misclassified import WrongExamples
from trainyard.training.observers import MetricsCsv, Terminal, Trackers, check_trackers, make_loggers
from trainyard.training.processes import start_fabric
from trainyard.training.reports import StepReport, Validation
from trainyard.training.runs import CHECKPOINTS

DigitsExperiment = Callable[..., Experiment]
HEAD = SingleLabel()
CLASSES = ("cat", "dog")
LABELS = np.array([0, 1, 1, 0])


def step(number: int, loss: float = 1.0, best: float | None = None) -> StepReport:
    """Four steps make an epoch."""
    return StepReport(number, 8, (number - 1) // 4, torch.tensor(loss), 0.1, 50.0, epochs=2, best=best)


def validation(epoch: int, number: int, predicted: tuple[int, ...] = (0, 0, 1, 0)) -> Validation:
    """By default example 1, a dog, is taken for a cat."""
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 2) * 3.0
    return Validation(epoch, number, HEAD.scores(logits, torch.from_numpy(LABELS), CLASSES), logits, improved=True)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def wrong_examples(items: list[Item] | None = None) -> WrongExamples:
    items = items if items is not None else ["meow", "woof", "bark", "purr"]
    return WrongExamples(Records(items, LABELS, [""] * 4), CLASSES)


def trackers(experiment: Experiment, run: Path, wrong: WrongExamples | None = None) -> Trackers:
    return Trackers(make_loggers(experiment, run), experiment.trainer.log_every, CLASSES, wrong or wrong_examples())


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_the_csv_has_a_row_per_epoch(tmp_path: Path) -> None:
    observer = MetricsCsv(tmp_path)
    for epoch in (1, 2):
        observer.on_step(step(4 * epoch, loss=1 / epoch))
        observer.on_validation(validation(epoch, 4 * epoch))

    first, second = rows(tmp_path)
    assert (first["epoch"], first["step"], first["train_loss"], first["lr"]) == ("1", "4", "1.0", "0.1")
    assert (second["step"], second["train_loss"], second["examples_per_second"]) == ("8", "0.5", "50.0")
    assert float(first["val_accuracy"]) == 0.75


def test_a_resumed_run_goes_on_with_the_rows_of_the_csv(tmp_path: Path) -> None:
    """It died after writing epoch 2's row and before its checkpoint, so epoch 2 is done again."""
    before = MetricsCsv(tmp_path)
    for epoch in (1, 2):
        before.on_step(step(4 * epoch, loss=1.0))
        before.on_validation(validation(epoch, 4 * epoch))

    resumed = MetricsCsv(tmp_path)
    resumed.on_step(step(8, loss=0.25))
    resumed.on_validation(validation(2, 8))

    assert [(row["epoch"], row["train_loss"]) for row in rows(tmp_path)] == [("1", "1.0"), ("2", "0.25")]


def test_a_resumed_run_goes_on_with_a_metric_more_and_one_less(tmp_path: Path) -> None:
    for epoch, name in ((1, "old"), (2, "new")):
        observer = MetricsCsv(tmp_path)
        plain = validation(epoch, 4 * epoch)
        observer.on_validation(replace(plain, scores=replace(plain.scores, metrics={name: 0.5})))

    assert [(row["val_old"], row["val_new"]) for row in rows(tmp_path)] == [("0.5", ""), ("", "0.5")]


def tell_four_steps(observer: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds each; the first epoch is validated after them."""
    for number in (1, 2, 3, 4):
        monkeypatch.setattr(time, "monotonic", lambda number=number: 10.0 * number)
        observer.on_step(step(number))
    observer.on_validation(validation(1, 4))


def test_without_a_terminal_there_are_plain_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    observer = Terminal(log_every=2)
    tell_four_steps(observer, monkeypatch)
    observer.on_step(step(6, best=0.75))
    observer.close()

    assert caplog.messages == [
        "epoch 1/2  step 1/8  loss 1.000  50 ex/s",
        "epoch 1/2  step 2/8  loss 1.000  50 ex/s  01:00 left",
        "epoch 1/2  step 4/8  loss 1.000  50 ex/s  00:40 left",
        "epoch 1: validation accuracy 0.7500, macro-F1 0.7333, loss 0.7986 (best)",
        "epoch 2/2  step 6/8  loss 1.000  50 ex/s  00:12 left  best 0.7500",
    ]


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """A terminal in place of stderr."""
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def test_a_terminal_gets_a_bar_and_the_epochs_lines_above_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    terminal = eighty_columns(monkeypatch)
    observer = Terminal(log_every=2)
    tell_four_steps(observer, monkeypatch)
    observer.close()

    shown = terminal.getvalue()
    assert "epoch 1/2  step 1/8  loss 1.000" in shown
    assert "epoch 1: validation accuracy 0.7500" in shown
    assert caplog.messages == []


def test_the_bar_of_a_long_run_fits_into_80_columns_and_has_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = eighty_columns(monkeypatch)
    observer = Terminal(log_every=1)
    for number, now in ((1, 0.0), (1500, 4500.0)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        observer.on_step(StepReport(number, 3000, 5, torch.tensor(0.07), 0.1, 3912.4, epochs=12, best=0.9012))
    observer.close()

    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9?]*[A-Zhl]", "", terminal.getvalue()))
    assert "epoch 6/12  step 1500/3000  loss 0.070  3912 ex/s  1:15:03 left  best 0.9012" in max(lines, key=len)
    assert "\x1b[3" not in terminal.getvalue()
    assert max(map(len, lines)) <= 80


def test_tensorboard_has_the_curves(digits_run: Path, digits_experiment: DigitsExperiment) -> None:
    accumulator = events(digits_run)
    optim = digits_experiment().optim

    assert [number for number, _ in points(accumulator, "train/loss")] == list(range(1, 9))
    rates = [optim.lr * (1 - number / 8) for number in range(8)]
    assert [value for _, value in points(accumulator, "lr")] == pytest.approx(rates)
    assert all(value > 0 for _, value in points(accumulator, "examples_per_second"))
    for name in ("accuracy", "macro_f1", "loss", "ece"):
        first, second = (float(row[f"val_{name}"]) for row in rows(digits_run))
        assert points(accumulator, f"val/{name}") == [(4, pytest.approx(first)), (8, pytest.approx(second))]


def test_tensorboard_has_the_keys_and_the_test_scores(digits_run: Path) -> None:
    accumulator = events(digits_run)
    test = json.loads((digits_run / "metrics.json").read_text())["test"]

    for name, value in test.items():
        assert points(accumulator, f"test/{name}")[0][1] == pytest.approx(value)
    summaries = accumulator.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for key in (b"optim/lr", b"data/batch_size", b"model/name", b"seed"):
        assert key in summaries


def test_tensorboard_shows_the_confusion_matrix_and_wrong_images(digits_run: Path) -> None:
    accumulator = events(digits_run)

    assert [event.step for event in accumulator.Images("val/confusion_matrix")] == [8]
    matrix = Image.open(io.BytesIO(accumulator.Images("val/confusion_matrix")[0].encoded_image_string))
    assert min(matrix.size) > 300
    assert len(matrix.getcolors(1 << 20) or []) > 10
    picture = Image.open(io.BytesIO(accumulator.Images("wrong/0")[0].encoded_image_string))
    assert picture.size == (128, 128)
    assert b" taken for " in accumulator.Tensors("wrong/0/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard_shows_wrong_texts_surest_first(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    experiment = digits_experiment(trainer={"loggers": ["tensorboard"]})
    pair = wrong_examples([("a", "b"), ("woof", "arf"), ("c", "d"), ("purr", "meow")])
    surest = validation(1, 4, (0, 0, 1, 1))
    surest.logits[3] = torch.tensor([0.0, 9.0])
    with trackers(experiment, tmp_path, pair) as observer:
        observer.on_validation(surest)

    accumulator = events(tmp_path)
    shown = [accumulator.Tensors(f"wrong/{n}/text_summary")[0].tensor_proto.string_val[0] for n in range(2)]
    assert shown == [b"cat taken for dog (1.00): purr | meow", b"dog taken for cat (0.95): woof | arf"]
    assert "wrong/2/text_summary" not in accumulator.Tags()["tensors"]


def test_class_names_in_a_script_that_the_font_lacks_do_no_harm(
    digits_experiment: DigitsExperiment, tmp_path: Path
) -> None:
    experiment = digits_experiment(trainer={"loggers": ["tensorboard"]})
    with Trackers(make_loggers(experiment, tmp_path), 1, ("猫", "犬"), wrong_examples()) as observer:
        observer.on_validation(validation(1, 4))

    assert events(tmp_path).Images("val/confusion_matrix")


def test_what_was_logged_after_the_checkpoint_is_logged_once(
    digits_experiment: DigitsExperiment, tmp_path: Path
) -> None:
    experiment = digits_experiment(trainer={"loggers": ["tensorboard"]})
    with pytest.raises(RuntimeError, match="crash"), trackers(experiment, tmp_path) as observer:
        for number in range(1, 7):
            observer.on_step(step(number, loss=1.0))
        raise RuntimeError("crash")
    checkpoint = Checkpoint(format=FORMAT, progress={"step": 3}, model={}, optimizer={}, scaler={}, average={})
    (tmp_path / CHECKPOINTS).mkdir()
    write_checkpoint(tmp_path / CHECKPOINTS / LAST, checkpoint)

    with trackers(experiment, tmp_path) as observer:
        for number in range(4, 9):
            observer.on_step(step(number, loss=2.0))

    expected = [(number, 1.0 if number <= 3 else 2.0) for number in range(1, 9)]
    assert points(events(tmp_path), "train/loss") == expected


def test_log_every_sets_the_points_of_the_curves(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    experiment = digits_experiment(trainer={"loggers": ["tensorboard"], "log_every": 3})
    with trackers(experiment, tmp_path) as observer:
        for number in range(1, 9):
            observer.on_step(step(number))

    assert [number for number, _ in points(events(tmp_path), "train/loss")] == [3, 6]


def test_mlflow_has_metrics_keys_and_the_outcome(digits_run: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"file:{digits_run.parents[1] / 'mlruns'}")
    found = client.get_experiment_by_name("digits")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    losses = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "train/loss")}
    curve = dict(points(events(digits_run), "train/loss"))
    metrics = json.loads((digits_run / "metrics.json").read_text())

    assert losses == pytest.approx(curve)
    assert run.data.metrics["test/accuracy"] == metrics["test"]["accuracy"]
    assert run.data.metrics["val/macro_f1"] == pytest.approx(float(rows(digits_run)[-1]["val_macro_f1"]))
    assert (run.data.params["optim/lr"], run.data.params["model/name"]) == ("0.05", "plain")
    assert (run.info.run_name, run.info.status) == (digits_run.name, "FINISHED")


def test_mlflow_knows_of_a_run_that_failed(digits_experiment: DigitsExperiment, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    experiment = digits_experiment(trainer={"loggers": ["mlflow"]})
    with pytest.raises(RuntimeError, match="crash"), trackers(experiment, tmp_path) as observer:
        observer.on_step(step(1))
        raise RuntimeError("crash")

    client = MlflowClient(f"file:{experiment.out / 'mlruns'}")
    found = client.get_experiment_by_name("digits")
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FAILED"


@pytest.mark.slow  # it starts a service of its own
def test_wandb_has_metrics_and_keys(
    digits_experiment: DigitsExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    experiment = digits_experiment(trainer={"loggers": ["wandb"]})
    with trackers(experiment, tmp_path) as observer:
        observer.on_step(step(1, loss=1.25))
        observer.on_validation(validation(1, 4))
        observer.log_result(experiment, {"accuracy": 0.8125})
    wandb.teardown()  # its service writes the file to the end before it ends

    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for expected in (b"train/loss", b"1.25", b"val/macro_f1", b"test/accuracy", b"0.8125", b"plain"):
        assert expected in content


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_a_usage_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(UsageError, match=f"trainer.loggers names {name}.*pip install {name}"):
        check_trackers(["tensorboard", name])


def test_a_folder_of_that_name_is_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()

    with pytest.raises(UsageError, match="wandb"):
        check_trackers(["wandb"])


def test_lines_are_seen_where_nobody_set_up_logging_and_once_where_someone_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, library = logging.getLogger(), logging.getLogger("trainyard")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(library, "handlers", [])
    level = library.level
    try:
        for _ in range(2):
            start_fabric(TrainerConfig(devices="cpu", threads=1))
        logging.getLogger("trainyard.training").info("a line")
        assert capsys.readouterr().err == "a line\n"
        root.handlers.append(logging.NullHandler())
        logging.getLogger("trainyard.training").info("a line")
        assert capsys.readouterr().err == ""
    finally:
        library.setLevel(level)
