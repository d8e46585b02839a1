"""Optimisers, parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer

from trainyard.config.experiment import OptimConfig
from trainyard.models.classifier import Classifier
from trainyard.training.muon import Muon, is_matrix

ONECYCLE_START = 25
ONECYCLE_END = 1e4
"""Divisors of the peak rate at the start and the end of ``onecycle`` (Smith & Topin 2018)."""


class ParameterGroup(TypedDict):
    """Parameters that are updated alike. ``peak_lr`` times the schedule gives the rate of a step."""

    params: list[nn.Parameter]
    orthogonal: bool
    weight_decay: float
    peak_lr: float
    lr: float


def parameter_groups(classifier: Classifier, config: OptimConfig) -> list[ParameterGroup]:
    """Groups the trainable parameters by stage, by whether they decay, and by whether ``muon`` orthogonalises them.

    Norms and biases (one dimension) don't decay. Muon is for the matrices between the first stage and the last.
    """
    groups: dict[tuple[int, bool, bool], ParameterGroup] = {}
    for name, parameter in classifier.network.named_parameters():
        if not parameter.requires_grad:
            continue
        stage, decays = classifier.stage_of(name), parameter.ndim > 1
        hidden = 0 < stage < classifier.stage_count - 1
        orthogonal = config.name == "muon" and hidden and is_matrix(parameter)
        key = (stage, decays, orthogonal)
        if key not in groups:
            lr, decay = _stage_lr(classifier, config, stage), config.weight_decay if decays else 0.0
            groups[key] = ParameterGroup(params=[], orthogonal=orthogonal, weight_decay=decay, peak_lr=lr, lr=lr)
        groups[key]["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _stage_lr(classifier: Classifier, config: OptimConfig, stage: int) -> float:
    last = classifier.stage_count - 1
    if stage == last:
        return config.lr * config.head_lr
    return config.lr * config.layer_decay ** (last - stage)


def build_optimizer(classifier: Classifier, config: OptimConfig, device: torch.device) -> Optimizer:
    """The config's optimiser over the trainable parameters, with one kernel for all of them."""
    groups = [dict(group) for group in parameter_groups(classifier, config)]
    fused = device.type in ("cpu", "cuda")
    if config.name == "sgd":
        momentum = config.momentum
        # torch's fused SGD has no form for sharded tensors.
        sharded = any(isinstance(parameter, DTensor) for parameter in classifier.network.parameters())
        return SGD(groups, lr=config.lr, momentum=momentum, nesterov=momentum > 0, fused=fused and not sharded)
    if config.name == "muon":
        return Muon(groups, lr=config.lr, momentum=config.momentum)
    return AdamW(groups, lr=config.lr, fused=fused)


def schedule(config: OptimConfig, step: int, total_steps: int) -> float:
    """Factor of the peak learning rate at ``step`` of ``total_steps``: a function of the step, so nothing is saved."""
    share = {"onecycle": 0.3, "constant": 0.0}.get(config.schedule, 0.05) if config.warmup is None else config.warmup
    warmup_steps = share * total_steps
    if config.schedule == "onecycle":
        return _onecycle(step, warmup_steps, total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    match config.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0


def _onecycle(step: int, warmup_steps: float, total_steps: int) -> float:
    if step < warmup_steps:
        return _cosine_between(1 / ONECYCLE_START, 1.0, step / warmup_steps)
    return _cosine_between(1.0, 1 / ONECYCLE_END, (step - warmup_steps) / max(total_steps - warmup_steps, 1))


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Sets each group's rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
