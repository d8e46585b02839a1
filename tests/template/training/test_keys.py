"""What the keys of the owner's sections do in the loop: each changes the result, and a resumed run knows them all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from trainyard.training.loop import TrainingLoop
from trainyard.training.reports import StepReport, Validation

MakeLoop = Callable[..., TrainingLoop]
KEYS = [
    {"optim": {"label_smoothing": 0.1}},
    {"optim": {"class_weights": "balanced"}},
    {"optim": {"class_weights": [1.0, 2.0, 3.0]}},
    {"optim": {"balanced_sampling": True}},
    {"optim": {"weight_decay": 0.1}},
    {"optim": {"momentum": 0.5}},
    {"optim": {"warmup": 0.5}},
    {"augment": {"mixup": 0.5}},
    {"augment": {"cutmix": 0.5}},
]


class Crash:
    """Raises at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, report: StepReport) -> None:
        if report.step == self.at:
            raise RuntimeError("crash")

    def on_validation(self, validation: Validation) -> None:
        pass


def run(make_loop: MakeLoop, fresh: bool = True, **sections: dict[str, object]) -> dict[str, Tensor]:
    loop = make_loop(**sections)
    for file in loop.folder.glob("*") if fresh else ():
        file.unlink()
    loop.run()
    return {name: tensor.clone() for name, tensor in loop.network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_a_key_changes_the_result(make_loop: MakeLoop, keys: dict[str, dict[str, object]]) -> None:
    assert not same(run(make_loop), run(make_loop, **keys))


@pytest.mark.parametrize("crash_at", [1, 5, 7])
@pytest.mark.parametrize("optim", [{}, {"name": "adamw", "lr": 0.01, "ema": 0.9}, {"name": "muon", "lr": 0.01}])
def test_a_resumed_run_ends_with_the_same_weights(make_loop: MakeLoop, crash_at: int, optim: dict[str, object]) -> None:
    keys = {"optim": optim, "trainer": {"save_every": 1}, "augment": {"mixup": 0.2}}
    reference = run(make_loop, **keys)
    for file in make_loop(**keys).folder.iterdir():
        file.unlink()

    with pytest.raises(RuntimeError, match="crash"):
        make_loop([Crash(crash_at)], **keys).run()

    assert same(run(make_loop, fresh=False, **keys), reference)


def test_balanced_weights_are_inverse_to_the_counts(make_loop: MakeLoop) -> None:
    loop = make_loop(labels=[0] * 50 + [1] * 40 + [2] * 10, optim={"class_weights": "balanced"})

    torch.testing.assert_close(loop.task.class_weights, torch.tensor([100 / 150, 100 / 120, 100 / 30]))


def test_balanced_sampling_draws_classes_alike(make_loop: MakeLoop) -> None:
    loop = make_loop(labels=[0] * 80 + [1] * 10 + [2] * 10, optim={"balanced_sampling": True})

    drawn = np.concatenate([batch for epoch in range(20) for batch in loop._epoch_batches(epoch)])

    shares = np.bincount(loop.train.labels[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
