"""What your model learns by: the loss, the optimiser and the learning rate.

The section ``optim`` is read in this file alone: the training loop asks ``Task``, and knows no key of yours.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer

from trainyard.base.errors import UsageError
from trainyard.config.section import Section
from trainyard.data.loader import Batch
from trainyard.data.sampling import balancing_weights
from trainyard.models.classifier import Classifier
from trainyard.training.muon import Muon, is_matrix
from trainyard.training.task import TrainingTask

from .augment import Augmentation

ONECYCLE_START = 25
ONECYCLE_END = 1e4
"""Divisors of the peak rate at the start and the end of ``onecycle`` (Smith & Topin 2018)."""


class OptimConfig(Section):
    """How the weights are updated."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """`sgd` is SGD with Nesterov momentum, `adamw` is AdamW (Loshchilov & Hutter 2019), both fused where torch has it;
    `muon` orthogonalises the updates of the matrices between the first stage and the last (Jordan et al. 2024), which
    learns more in few epochs, and is AdamW for the rest."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    """Peak learning rate of the output layer (and of all, when `layer_decay` is 1)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd` and `muon`."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay, of weight matrices and convolutions only: norms and biases have none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each stage of the network to the one before it: below 1 for fine-tuning."""
    head_lr: Annotated[float, Field(gt=0)] = 1.0
    """Factor of the learning rate of the last stage, which is new when a pretrained network is fine-tuned."""
    schedule: Literal["cosine", "onecycle", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up; `onecycle` warms up over `warmup` of the steps, by default 0.3."""
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the steps in which the learning rate rises; by default 0.3 for `onecycle` and 0.05 otherwise."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that is spread over all classes in the training target (Szegedy et al. 2016)."""
    distil: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a text's training target that a simple model of words and letters gives, and not the label (Hinton et
    al. 2015). It learns from the other training texts, and helps where they are a few thousand; 0 is off."""
    class_weights: Literal["none", "balanced"] | list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = "none"
    """Weights of the classes in the training loss, for imbalance: `balanced` is inverse to their counts; or a list."""
    balanced_sampling: bool = False
    """Draw training examples so that all classes come equally often."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; by default it isn't clipped."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 is off."""

    @model_validator(mode="after")
    def _imbalance_is_corrected_once(self) -> Self:
        if self.class_weights != "none" and self.balanced_sampling:
            raise ValueError("optim.class_weights and optim.balanced_sampling both correct imbalance: choose one")
        return self

    def check_strategy(self, strategy: str) -> None:
        """Refuses what can't be done with a model that is sharded over processes."""
        if strategy == "fsdp" and self.ema:
            raise ValueError("optim.ema isn't supported with trainer.strategy=fsdp: set optim.ema=0")
        if strategy == "fsdp" and self.name == "muon":
            raise ValueError("optim.name=muon needs whole matrices: with trainer.strategy=fsdp, set optim.name=adamw")


class Task(TrainingTask):
    """Cross entropy over the classes.

    Args:
        model: What is trained.
        optim: The section ``optim``.
        augmentation: What is done to training images; ``None`` for texts.
        class_weights: Weight of each class in the loss, ``[classes] float32``.
        targets: What each training text is to be answered by, ``[examples, classes] float32``; ``None`` is its label.
    """

    def __init__(
        self,
        model: Classifier,
        optim: OptimConfig,
        augmentation: Augmentation | None = None,
        class_weights: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        # The loop asks for `clip` and `ema`, and for the methods below; it never sees the section itself.
        self.optim, self.augmentation = optim, augmentation
        self.clip, self.ema = optim.clip, optim.ema
        # A buffer moves to the GPU with the model; it isn't persistent, so no checkpoint holds it.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("targets", targets, persistent=False)

    def training_loss(self, batch: Batch, epoch: int) -> Tensor:
        """The mean loss of a batch, its images augmented as ``(seed, epoch, example)`` says."""
        if self.augmentation is None:
            targets = cast("Tensor | None", self.targets)
            return self.loss(self(**batch.inputs), batch.labels if targets is None else targets[batch.indices])
        # By its place in the split, not by a generator's state: a run that was killed augments it in the same way.
        examples = batch.indices.numpy()
        images = self.augmentation(batch.inputs["images"], examples, epoch)
        if not self.augmentation.mixes:
            return self.loss(self(images=images), batch.labels)
        # After the crop and the flip, so that both images of a pair are of the size that the model sees.
        mixture = self.augmentation.mix(images, batch.labels, examples, epoch)
        logits = self(images=mixture.images)
        # Cross entropy also takes a distribution over the classes as its target: here two labels by their shares.
        target, row = torch.zeros_like(logits), torch.arange(len(logits), device=logits.device)
        target[row, batch.labels] += mixture.shares
        target[row, mixture.partners] += 1 - mixture.shares
        return self.loss(logits, target)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of the loss of logits ``[batch, classes]``.

        Args:
            target: Labels ``[batch] int64``, or a distribution over the classes ``[batch, classes]``.
        """
        weights = cast("Tensor | None", self.class_weights)
        return self.head.loss(logits, target, weights, self.optim.label_smoothing)

    def sampling_weights(self, labels: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """How often each training example is drawn against the others; ``None`` is once an epoch."""
        return balancing_weights(labels) if self.optim.balanced_sampling else None

    def optimizer(self) -> Optimizer:
        """The optimiser over the trainable parameters, with one kernel for all of them."""
        # Fused: one kernel for all parameters, where a loop over hundreds of them would keep a GPU waiting.
        optim, groups = self.optim, self.parameter_groups()
        device = next(self.model.parameters()).device
        # torch's fused SGD has no form for sharded tensors.
        sharded = any(isinstance(parameter, DTensor) for parameter in self.model.parameters())
        fused = device.type in ("cpu", "cuda")
        match optim.name:
            case "sgd":
                nesterov = optim.momentum > 0
                return SGD(groups, optim.lr, optim.momentum, nesterov=nesterov, fused=fused and not sharded)
            case "adamw":
                return AdamW(groups, lr=optim.lr, fused=fused)
            case "muon":
                return Muon(groups, lr=optim.lr, momentum=optim.momentum)

    def parameter_groups(self) -> list[dict[str, object]]:
        """Groups the trainable parameters by rate, by whether they decay, and by whether ``muon`` orthogonalises them.

        The rate follows from the stage: a part of the network from input to output; the last is its output layer.
        The loop multiplies each group's ``peak_lr`` by the schedule. Each group costs the optimiser a call of its own.
        """
        optim, last = self.optim, self.model.stage_count - 1
        groups: dict[tuple[float, bool, bool], dict[str, object]] = {}
        for name, parameter in self.model.network.named_parameters():
            if not parameter.requires_grad:
                continue
            # Norms and biases have one dimension. To pull them towards 0 only makes training harder.
            stage, decays = self.model.stage_of(name), parameter.ndim > 1
            # Muon is for hidden matrices: at both ends, AdamW is better (Jordan et al. 2024).
            orthogonal = optim.name == "muon" and 0 < stage < last and is_matrix(parameter)
            # A new head may learn fast; what was pretrained, the less the nearer it is to the input.
            factor = optim.head_lr if stage == last else optim.layer_decay ** (last - stage)
            new: dict[str, object] = {
                "params": [],
                "orthogonal": orthogonal,
                "weight_decay": optim.weight_decay if decays else 0.0,
                "peak_lr": optim.lr * factor,
                "lr": optim.lr * factor,
            }
            group = groups.setdefault((factor, decays, orthogonal), new)
            cast("list[Tensor]", group["params"]).append(parameter)
        # Sorted, because a checkpoint knows a parameter's state by its place.
        return [groups[key] for key in sorted(groups)]

    def schedule(self, step: int, total_steps: int) -> float:
        """Factor of the peak rates at ``step`` of ``total_steps``: a function of the step, so nothing is saved."""
        shape, warmup = self.optim.schedule, self.optim.warmup
        if warmup is None:
            warmup = {"onecycle": 0.3, "constant": 0.0}.get(shape, 0.05)
        # A share of the run and no number of steps: it fits, whether you train for one epoch or for a hundred.
        warmup_steps = warmup * total_steps
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
        if shape == "onecycle":
            if step < warmup_steps:
                return _cosine_between(1 / ONECYCLE_START, 1.0, step / warmup_steps)
            return _cosine_between(1.0, 1 / ONECYCLE_END, progress)
        if step < warmup_steps:
            # From above 0: a first step at rate 0 would be a batch for nothing.
            return (step + 1) / (warmup_steps + 1)
        match shape:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * progress))
            case "linear":
                return 1 - progress
            case "constant":
                return 1.0


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def class_weights(optim: OptimConfig, labels: NDArray[np.int64], classes: int) -> Tensor | None:
    """Weight of each class in the loss, ``[classes] float32``; ``balanced`` has mean 1 over the training examples.

    Raises:
        UsageError: the config lists more or fewer weights than there are classes.
    """
    wanted = optim.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        # With data.limit a class may have no example.
        counts = np.bincount(labels, minlength=classes).clip(min=1)
        return torch.from_numpy(len(labels) / (classes * counts)).float()
    if len(wanted) != classes:
        raise UsageError(f"optim.class_weights has {len(wanted)} weights for {classes} classes; give one for each")
    return torch.tensor(wanted)
