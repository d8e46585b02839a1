"""What a config file may say: the whole of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from trainyard.config.data import DataConfig
from trainyard.config.kinds import parse_model
from trainyard.config.section import Section, changes, number_as_text

# YAML reads 32 as a number.
Precision = Annotated[
    Literal["32", "bf16-mixed", "16-mixed"],
    BeforeValidator(number_as_text, json_schema_input_type=Literal["32", 32, "bf16-mixed", "16-mixed"]),
]
AnyPath = Annotated[Path, BeforeValidator(number_as_text, json_schema_input_type=Path)]
Logger = Literal["tensorboard", "mlflow", "wandb"]

if TYPE_CHECKING:
    from trainyard.models.base import ModelConfig

    AnyModel = ModelConfig
else:
    # The class of the kind that is named, and no other, is the project's and imported then.
    AnyModel = Annotated[
        Section, BeforeValidator(lambda section: parse_model(section) if isinstance(section, dict) else section)
    ]


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
    class_weights: Literal["none", "balanced"] | list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = "none"
    """Weights of the classes in the training loss, for imbalance: `balanced` is inverse to their counts; or a list."""
    balanced_sampling: bool = False
    """Draw training examples so that all classes come equally often."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; by default it isn't clipped."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 is off."""


class TrainerConfig(Section):
    """How long, on what, and what is kept."""

    max_epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the training split."""
    precision: Precision = "32"
    """Number format of the forward and backward pass; weights stay float32."""
    devices: Annotated[Literal["auto", "cpu"] | Annotated[int, Field(ge=1)], changes("nothing")] = "auto"
    """`auto` takes the GPUs there are and else the CPU; `cpu` the CPU; a number starts that many processes."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Across processes: `ddp` keeps a copy of the model in each, `fsdp` shards it (GPUs only)."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added up before a step."""
    save_every: Annotated[Annotated[int, Field(ge=1)] | None, changes("checkpoints")] = None
    """Optimiser steps between checkpoints; one is always written at the end of an epoch."""
    resume: Annotated[bool | str, changes("nothing")] = False
    """`auto` goes on with this config's newest unfinished run, if there is one; or the path of a run folder."""
    keep: Literal["best", "last"] = "best"
    """Which weights go into the bundle: those of the epoch with the best `monitor`, or the last."""
    monitor: Literal["accuracy", "macro_f1", "loss"] = "macro_f1"
    """Validation metric by which `best` and `patience` judge."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop early after this many epochs without a better `monitor`."""
    channels_last: bool = False
    """Lay images out as NHWC: faster on most GPUs and CPUs for convolutions."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at the start, faster steps after it."""
    loggers: Annotated[list[Logger], changes("nothing")] = ["tensorboard"]
    """Where metrics go besides `metrics.csv`."""
    log_every: Annotated[int, Field(ge=1), changes("nothing")] = 50
    """Optimiser steps between log lines."""
    preset: Literal["none", "dry_run", "overfit_batch", "profile"] = "none"
    """For debugging: `dry_run` goes once through everything with a few batches, `overfit_batch` repeats one batch
    until it is learnt, `profile` writes a torch.profiler trace of some steps."""
    threads: Annotated[Annotated[int, Field(ge=1)] | None, changes("nothing")] = None
    """CPU threads of each process; by default the cores divided by the processes of this machine."""


class BundleConfig(Section):
    """What is sealed at the end."""

    samples: bool = True
    """Put training examples (for calibration) and golden requests into the bundle; `false` for private data."""


class Settings(Section):
    """The sections of a config file that are the library's own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the experiment; its runs lie in `<out>/<name>/`."""
    seed: int = Field(default=42, ge=0, lt=2**31)
    """Seed of everything random."""
    out: Annotated[AnyPath, changes("nothing")] = Path("runs")
    """Folder of all runs, relative to where the command is called."""
    data: DataConfig
    """The examples."""
    trainer: TrainerConfig = TrainerConfig()
    """How long, on what, and what is kept."""
    bundle: BundleConfig = BundleConfig()
    """What is sealed at the end."""


class Experiment(Settings):
    """A config file."""

    model: SerializeAsAny[AnyModel]
    """The network."""
    optim: OptimConfig = OptimConfig()
    """How the weights are updated."""

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.trainer.strategy == "fsdp" and self.optim.ema:
            raise ValueError("optim.ema isn't supported with trainer.strategy=fsdp: set optim.ema=0")
        if self.trainer.strategy == "fsdp" and self.optim.name == "muon":
            raise ValueError("optim.name=muon needs whole matrices: with trainer.strategy=fsdp, set optim.name=adamw")
        if self.optim.class_weights != "none" and self.optim.balanced_sampling:
            raise ValueError("optim.class_weights and optim.balanced_sampling both correct imbalance: choose one")
        return self
