"""What a config file may say: the whole of it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from trainyard.base.project import find_project
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
METRICS = ("accuracy", "macro_f1", "loss", "ece")
"""The library's own metrics, on which the gate and the model card stand."""

if TYPE_CHECKING:
    from trainyard.models.base import ModelConfig

    AnyModel = ModelConfig
else:
    # The class of the kind that is named, and no other, is the project's and imported then.
    AnyModel = Annotated[
        Section, BeforeValidator(lambda section: parse_model(section) if isinstance(section, dict) else section)
    ]


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
    monitor: str = "macro_f1"
    """Validation metric by which `best` and `patience` judge: accuracy, macro_f1, loss, ece or one of the project's."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop early after this many epochs without a better `monitor`."""
    min_gain: Annotated[Annotated[float, Field(ge=-1, lt=1)] | None, changes("nothing")] = None
    """Least gain of test accuracy over the baseline, a simple model on the same splits: 0.02 for two points. A run that
    gains less is kept, and ends with exit code 3."""
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

    @field_validator("monitor")
    @classmethod
    def _monitor_is_measured(cls, name: str) -> str:
        # The project is looked for only where it matters: this class is imported by commands that need none.
        if name in METRICS:
            return name
        project = find_project()
        known = [*METRICS, *(project.metrics if project else ())]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(known)}"
            raise ValueError(f"'trainer.monitor' must be a metric, and {name!r} is none; {hint}")
        return name


class BundleConfig(Section):
    """What is sealed at the end."""

    samples: bool = True
    """Put training examples (for calibration) and golden requests into the bundle; `false` for private data."""


class ReportConfig(Section):
    """What `report.html` shows."""

    samples: Annotated[bool, changes("nothing")] = True
    """Keep pictures and beginnings of test texts in the run, for its report; `false` for private data."""


class EvaluationConfig(Section):
    """What the scores are to show."""

    target_accuracy: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """Share of the certain answers that is to be right, such as 0.98; answers less probable than it takes are marked
    `uncertain`. Chosen on the validation split, with 95 % confidence."""


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
    evaluation: EvaluationConfig = EvaluationConfig()
    """What the scores are to show."""
    report: ReportConfig = ReportConfig()
    """What `report.html` shows."""


class Experiment(Settings):
    """A config file; a project's own has sections of its own besides."""

    model: SerializeAsAny[AnyModel]
    """The network."""

    def without_regularisation(self) -> Self:
        """The config with which a batch can be learnt by heart; a project switches off here what keeps it from that."""
        return self
