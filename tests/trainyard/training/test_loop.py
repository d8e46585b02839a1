"""The training loop: what each key does, exact resumption, and what happens when something goes wrong."""

from __future__ import annotations

import copy
import csv
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainyard.base.errors import TrainyardError
from trainyard.training import loop as loop_module
from trainyard.training.checkpoint import BEST, LAST, read_checkpoint
from trainyard.training.loop import TrainingLoop
from trainyard.training.observers import MetricsCsv
from trainyard.training.reports import StepReport, Validation

MakeLoop = Callable[..., TrainingLoop]


class Recorder:
    """Remembers what it is told; can raise or signal at a step."""

    def __init__(self, crash_at: int | None = None, signal_at: int | None = None) -> None:
        self.steps: list[StepReport] = []
        self.validations: list[Validation] = []
        self.crash_at, self.signal_at = crash_at, signal_at

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)
        if report.step == self.crash_at:
            raise RuntimeError("crash")
        if report.step == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation(self, validation: Validation) -> None:
        self.validations.append(validation)


def weights(loop: TrainingLoop) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in loop.network.state_dict().items()}


def run(make_loop: MakeLoop, **sections: dict[str, object]) -> tuple[TrainingLoop, Recorder]:
    recorder = Recorder()
    loop = make_loop([recorder], **sections)
    loop.run()
    return loop, recorder


def differs(make_loop: MakeLoop, **sections: dict[str, object]) -> bool:
    """Whether these keys lead to other weights than the defaults."""
    plain, _ = run(make_loop)
    for file in plain.folder.iterdir():
        file.unlink()
    other, _ = run(make_loop, **sections)
    return not all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(other).values(), strict=True))


def test_it_learns(make_loop: MakeLoop) -> None:
    loop, recorder = run(make_loop, trainer={"max_epochs": 15})

    assert recorder.validations[-1].scores.accuracy > 0.85
    assert loop.progress.step == loop.total_steps == 15 * 6
    assert [validation.epoch for validation in recorder.validations] == list(range(1, 16))


@pytest.mark.parametrize("save_every", [1, 4, None])
@pytest.mark.parametrize("crash_at", [1, 5, 6, 7, 11])
@pytest.mark.parametrize("optim", [{}, {"name": "adamw", "lr": 0.01, "ema": 0.9}])
def test_a_resumed_run_ends_with_the_same_weights_and_order(
    make_loop: MakeLoop, save_every: int | None, crash_at: int, optim: dict[str, object]
) -> None:
    keys = {"optim": optim, "trainer": {"save_every": save_every}}
    reference, seen = run(make_loop, **keys)
    for file in reference.folder.iterdir():
        file.unlink()

    with pytest.raises(RuntimeError, match="crash"):
        make_loop([Recorder(crash_at=crash_at)], **keys).run()
    resumed, recorder = run(make_loop, **keys)

    for name, tensor in weights(reference).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    assert resumed.progress.order == reference.progress.order
    assert recorder.validations[-1].scores == seen.validations[-1].scores
    if save_every == 1 and crash_at > 1:
        assert recorder.steps[0].step >= crash_at - 1, "it went on, and didn't start again"


def test_a_finished_loop_has_nothing_left_to_do(make_loop: MakeLoop) -> None:
    run(make_loop)

    _, again = run(make_loop)

    assert again.steps == []


def test_dropout_and_order_follow_from_the_seed_alone(make_loop: MakeLoop) -> None:
    first, _ = run(make_loop)
    for file in first.folder.iterdir():
        file.unlink()
    torch.manual_seed(999)
    torch.rand(7)
    second, _ = run(make_loop)

    assert all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))


@pytest.mark.parametrize(
    "keys",
    [
        {"optim": {"clip": 0.01}},
        {"trainer": {"accumulate": 2}},
        {"trainer": {"precision": "bf16-mixed"}},
        {"data": {"batch_size": 8}},
    ],
    ids=str,
)
def test_a_key_changes_the_result(make_loop: MakeLoop, keys: dict[str, dict[str, object]]) -> None:
    assert differs(make_loop, **keys)


def test_accumulated_batches_make_the_step_of_one_large_batch(make_loop: MakeLoop) -> None:
    """Without batch norm's statistics and dropout's draws in between, the gradients are the same."""
    steps = {}
    for batch_size, accumulate in ((32, 1), (16, 2)):
        keys = {"data": {"batch_size": batch_size}, "trainer": {"accumulate": accumulate}}
        loop = make_loop(plain=True, **keys)
        loop.run()
        steps[accumulate] = (loop.progress.step, weights(loop)["1.weight"])
        for file in loop.folder.iterdir():
            file.unlink()

    assert steps[1][0] == steps[2][0]
    torch.testing.assert_close(steps[1][1], steps[2][1])


def test_the_average_is_what_is_validated_and_kept(make_loop: MakeLoop) -> None:
    loop, _ = run(make_loop, optim={"ema": 0.5}, trainer={"keep": "last"})
    trained = weights(loop)

    loop.load_kept_weights(loop.network)

    assert loop.average is not None
    torch.testing.assert_close(weights(loop)["1.weight"], loop.average.average["1.weight"])
    assert not torch.equal(trained["1.weight"], weights(loop)["1.weight"])
    best = read_checkpoint(loop.folder / BEST)
    assert not torch.equal(best["model"]["1.weight"], trained["1.weight"])


def test_keep_best_takes_the_weights_of_the_best_epoch(make_loop: MakeLoop) -> None:
    loop, recorder = run(make_loop, optim={"lr": 3.0}, trainer={"max_epochs": 6, "monitor": "accuracy"})
    last = weights(loop)
    accuracies = [validation.scores.accuracy for validation in recorder.validations]
    best = accuracies.index(max(accuracies)) + 1

    loop.load_kept_weights(loop.network)

    assert loop.progress.best_epoch == best
    assert (best == 6) == all(torch.equal(a, b) for a, b in zip(last.values(), weights(loop).values(), strict=True))


@pytest.mark.parametrize("monitor", ["accuracy", "macro_f1", "loss"])
def test_the_monitor_judges_and_less_loss_is_better(make_loop: MakeLoop, monitor: str) -> None:
    _, recorder = run(make_loop, trainer={"max_epochs": 8, "monitor": monitor})

    best = -math.inf
    for validation in recorder.validations:
        value = validation.scores.summary()[monitor] * (-1 if monitor == "loss" else 1)
        assert validation.improved == (value > best)
        best = max(best, value)


def test_patience_ends_training_early(make_loop: MakeLoop) -> None:
    loop, recorder = run(make_loop, optim={"lr": 1e-9}, trainer={"max_epochs": 50, "patience": 2})

    assert len(recorder.validations) < 50
    assert loop.progress.waited == 2


def test_a_checkpoint_is_written_every_few_steps(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    write = loop_module.write_checkpoint

    def record(path: object, checkpoint: object) -> None:
        written.append(copy.deepcopy(checkpoint["progress"]["step"]))  # type: ignore[index]
        write(path, checkpoint)  # type: ignore[arg-type]

    monkeypatch.setattr(loop_module, "write_checkpoint", record)
    run(make_loop, trainer={"save_every": 2, "max_epochs": 1, "keep": "last"})

    assert sorted(set(written)) == [2, 4, 6]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_precision_sets_the_type_of_activations(make_loop: MakeLoop, precision: str) -> None:
    loop = make_loop(trainer={"precision": precision})
    types = set()
    loop.network[1].register_forward_hook(lambda *hook: types.add(hook[2].dtype))

    loop.run()

    assert types == {torch.float32 if precision == "32" else torch.bfloat16}
    assert loop.network[1].weight.dtype == torch.float32


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(make_loop: MakeLoop) -> None:
    run(make_loop, trainer={"max_epochs": 1})
    before = (make_loop().folder / LAST).read_bytes()
    loop = make_loop(trainer={"max_epochs": 5})
    loop.task.training_loss = lambda *_: loop.network[1].weight.sum() * math.nan

    with pytest.raises(TrainyardError, match=r"the loss is nan at step 7; the checkpoint before it is kept"):
        loop.run()

    assert (loop.folder / LAST).read_bytes() == before


def test_weights_that_are_not_finite_are_never_saved(make_loop: MakeLoop) -> None:
    loop = make_loop()
    with torch.no_grad():
        loop.network[1].weight[0, 0] = math.inf

    with pytest.raises(TrainyardError, match="the weights aren't finite"):
        loop._save()

    assert not (loop.folder / LAST).exists()


@pytest.mark.parametrize("signal_at", [4, 6])  # in the middle of the first epoch, and at its last step
def test_sigterm_saves_and_exits_with_143_and_the_rest_is_the_same(
    make_loop: MakeLoop, signal_at: int, tmp_path: Path
) -> None:
    reference, _ = run(make_loop)
    for file in reference.folder.iterdir():
        file.unlink()

    with pytest.raises(SystemExit) as stop:
        make_loop([Recorder(signal_at=signal_at)]).run()
    assert stop.value.code == 143
    assert read_checkpoint(reference.folder / LAST)["progress"]["step"] == signal_at

    recorder = Recorder()
    resumed = make_loop([recorder, MetricsCsv(tmp_path)])
    resumed.run()
    assert recorder.steps[0].step == signal_at + 1
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())] == ["1", "2"]
    assert all(torch.equal(a, b) for a, b in zip(weights(reference).values(), weights(resumed).values(), strict=True))


def test_a_checkpoint_that_cannot_be_written_fails_loudly(make_loop: MakeLoop) -> None:
    loop = make_loop()
    loop.folder.parent.mkdir(exist_ok=True)
    loop.folder.write_text("a file where the folder should be")

    with pytest.raises(TrainyardError, match=r"can't be written"):
        loop.run()


def test_a_damaged_checkpoint_is_refused(make_loop: MakeLoop) -> None:
    loop, _ = run(make_loop)
    content = (loop.folder / LAST).read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"x" * 100):
        (loop.folder / LAST).write_bytes(damaged)
        with pytest.raises(TrainyardError, match="can't be read"):
            make_loop().run()


def test_another_number_of_processes_is_refused(make_loop: MakeLoop) -> None:
    loop, _ = run(make_loop)
    checkpoint = read_checkpoint(loop.folder / LAST)
    checkpoint["progress"]["world_size"] = 2
    torch.save(checkpoint, loop.folder / LAST)

    with pytest.raises(TrainyardError, match="go on with NPROC=2"):
        make_loop().run()


def test_scores_come_from_every_example_once(make_loop: MakeLoop) -> None:
    _, recorder = run(make_loop)

    assert {validation.scores.examples for validation in recorder.validations} == {50}
    assert set(recorder.validations[0].scores.per_class) == {"dark", "middle", "light"}


def test_a_checkpoint_with_other_groups_of_parameters_is_refused(make_loop: MakeLoop) -> None:
    run(make_loop)
    again = make_loop()
    groups = again.optimizer.optimizer.param_groups
    groups.append({**groups[0], "params": [groups[0]["params"].pop()]})

    with pytest.raises(TrainyardError, match="groups of parameters have changed"):
        again.run()
