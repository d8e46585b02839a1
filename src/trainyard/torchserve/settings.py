"""How a model is served: what is chosen, what follows for this machine, and the file in which TorchServe reads it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainyard.artifacts.export_record import FormatName
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import UsageError
from trainyard.formats.table import find_format

Device: TypeAlias = Literal["cpu", "cuda"]

MOST_WORKERS = 4
"""By default: each is a process with the model in it. What cores there are beyond are given to each as threads."""
STARTUP_SECONDS = 120
"""Time for a worker to load. AOTInductor on a busy machine took 16 s."""
RETRY_SECONDS = 300
"""How long TorchServe starts a worker again that dies as soon as it starts."""
SPELLING = {
    "workers": "maxWorkers", "batch_size": "batchSize", "max_batch_delay_ms": "maxBatchDelay",
    "response_timeout_s": "responseTimeout", "queue_size": "jobQueueSize",
}  # fmt: skip
"""What TorchServe calls what it reads itself."""
HANDLERS = ("format", "threads", "device", "batch_size")
"""What the handler reads."""

Count: TypeAlias = Annotated[int, Field(ge=1, le=1024, strict=True)]


class Settings(BaseModel):
    """How a model is served; what wasn't given is left to the archive or to the machine.

    Attributes:
        format: What answers; ``auto`` until the model is known.
        workers: Processes, each with the model in it; on GPUs each gets one of them, in turn.
        threads: Of a call in a worker.
        batch_size: Most requests that a worker answers with one call.
        max_batch_delay_ms: How long a request waits for others to share its batch. Behind our gateway one that finds no
            worker busy doesn't wait; TorchServe alone has each wait.
        response_timeout_s: A worker that takes longer is killed, and its batch fails.
        queue_size: Requests that may wait; one more is told to come again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[FormatName, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] = "auto"
    device: Device = "cpu"
    workers: Count = 1
    threads: Count = 1
    batch_size: Count = 8
    max_batch_delay_ms: Annotated[int, Field(ge=0, le=10_000, strict=True)] = 2
    response_timeout_s: Annotated[int, Field(ge=1, le=86_400, strict=True)] = 30
    queue_size: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 128

    @staticmethod
    def chosen(**values: int | str | None) -> Settings:
        """What a user chose; ``None`` is nothing chosen.

        Raises:
            UsageError: a value is out of its bounds.
        """
        try:
            given = {name: value for name, value in values.items() if value not in (None, "auto")}
            return Settings.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            option = str(first["loc"][0]).removesuffix("_ms").replace("_", "-")
            raise UsageError(f"--{option} {first['input']} isn't possible: {first['msg']}") from error

    def with_chosen(self, chosen: Settings) -> Settings:
        """These, with what was chosen in its place."""
        return self.model_copy(update=chosen.model_dump(exclude_unset=True))

    def for_machine(self, format: FormatName) -> Settings:
        """These with a format and, for what wasn't chosen, what serves well on this machine without measuring.

        One worker for each core, up to ``MOST_WORKERS``; what cores there are beyond are threads of each. On a GPU one
        worker.
        """
        device = "cuda" if find_format(format).device == "gpu" else "cpu"
        own = Settings(format=format, device=device).with_chosen(self)
        if own.device == "cpu":
            cores = this_cpu().cores
            workers = min(cores // min(own.threads, cores), MOST_WORKERS)
            if "workers" in self.model_fields_set:
                workers = self.workers
            own = own.model_copy(update={"workers": workers, "threads": max(1, cores // workers)})
        return own.with_chosen(self).model_copy(update={"format": format})

    def to_yaml(self, is_batched: bool = False) -> bytes:
        """The content of ``model-config.yaml``: what TorchServe 0.12 honours there, in its spelling.

        Args:
            is_batched: A request is a batch already, as our gateway makes them.
        """
        values = self.model_dump()
        if is_batched:
            values.update(batch_size=1, max_batch_delay_ms=0)
        content = {
            "minWorkers": self.workers,
            **{theirs: values[ours] for ours, theirs in SPELLING.items()},
            "startupTimeout": STARTUP_SECONDS,
            "maxRetryTimeoutInSec": RETRY_SECONDS,
            "deviceType": "gpu" if self.device == "cuda" else "cpu",
            "handler": {name: getattr(self, name) for name in HANDLERS} | ({"is_batched": True} if is_batched else {}),
        }
        return yaml.safe_dump(content, sort_keys=False).encode()

    @staticmethod
    def from_yaml(content: bytes) -> Settings:
        """Reads what ``to_yaml`` wrote, of an earlier release too, in which the format had another name.

        Raises:
            yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError: it is something else.
        """
        config = yaml.safe_load(content)
        handler = dict(config["handler"])
        handler["format"] = handler.pop("rung", None) or handler["format"]
        return Settings.model_validate({**handler, **{ours: config[theirs] for ours, theirs in SPELLING.items()}})
