"""Parameter groups, schedules, the moving average."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainyard.models.classifier import Classifier
from trainyard.training.ema import ExponentialMovingAverage

from my_project.task import OptimConfig, Task


class ThreeStages(Classifier):
    def __init__(self) -> None:
        stages = [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), nn.Linear(4, 2)]
        super().__init__(nn.Sequential(*stages), stages)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.network(x)
        return logits


def test_norms_and_biases_do_not_decay() -> None:
    groups = Task(ThreeStages(), OptimConfig(weight_decay=0.1)).parameter_groups()

    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}
    assert sum(len(group["params"]) for group in groups) == 8
    assert len(groups) == 2  # one for each rate: every group costs a call in every step


def test_rates_fall_from_stage_to_stage_towards_the_input() -> None:
    groups = Task(ThreeStages(), OptimConfig(lr=1.0, layer_decay=0.5, head_lr=3.0)).parameter_groups()

    assert sorted({group["peak_lr"] for group in groups}) == [0.25, 0.5, 3.0]


def test_frozen_parameters_are_left_out() -> None:
    classifier = ThreeStages()
    for parameter in classifier.network[0].parameters():
        parameter.requires_grad_(False)

    assert sum(len(group["params"]) for group in Task(classifier, OptimConfig()).parameter_groups()) == 6


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_fused(name: str, kind: type) -> None:
    config = OptimConfig.model_validate({"name": name, "momentum": 0.8})
    optimizer = Task(ThreeStages(), config).optimizer()

    assert isinstance(optimizer, kind)
    assert all(group["fused"] for group in optimizer.param_groups)
    if name == "sgd":
        assert all(group["nesterov"] and group["momentum"] == 0.8 for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["cosine", "linear", "onecycle"])
def test_a_schedule_rises_to_its_peak_and_falls_to_nothing(name: str) -> None:
    config = OptimConfig.model_validate({"schedule": name, "warmup": 0.2})
    task = Task(ThreeStages(), config)
    factors = [task.schedule(step, 1000) for step in range(1000)]
    peak = factors.index(max(factors))

    assert peak == 200
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[0] < 0.05
    assert factors[-1] < 0.01


def factor(name: str, step: int) -> float:
    return Task(ThreeStages(), OptimConfig.model_validate({"schedule": name})).schedule(step, 1000)


def test_the_shapes_differ_and_their_warm_ups_have_defaults() -> None:
    halfway = {name: factor(name, 700) for name in ("cosine", "linear", "onecycle", "constant")}

    assert halfway["constant"] == 1.0
    assert len({round(value, 3) for value in halfway.values()}) == 4
    assert factor("constant", 0) == 1.0
    assert factor("cosine", 49) < 1
    assert factor("onecycle", 299) < 1


def test_the_average_follows_the_weights_and_can_be_put_in_place() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    with torch.no_grad():
        network[0].weight.fill_(0.0)
    average = ExponentialMovingAverage(network, decay=0.9)
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[1].running_mean.fill_(1.0)

    average.update(step=1000)
    with average.applied():
        inside = (network[0].weight.item(), network[1].running_mean.item())

    assert inside == pytest.approx((0.1, 0.1))
    assert network[0].weight.item() == 1.0


def test_the_first_steps_of_the_average_forget_the_start() -> None:
    network = nn.Linear(1, 1)
    average = ExponentialMovingAverage(network, decay=0.999)
    with torch.no_grad():
        network.weight.fill_(5.0)

    average.update(step=0)

    assert average.average["weight"].item() == pytest.approx(5.0, rel=0.3)
