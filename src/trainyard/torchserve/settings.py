"""How an archive is served, and the ``model-config.yaml`` in which TorchServe and the handler read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from trainyard.artifacts.export_record import FormatName
from trainyard.base.cpu import this_cpu
from trainyard.base.errors import BundleError

Device: TypeAlias = Literal["cpu", "cuda"]

MOST_WORKERS = 4
"""By default: each is a process with the model in it. What cores there are beyond are given to each as threads."""
STARTUP_SECONDS = 120
"""Time for a worker to load. AOTInductor on a busy machine took 16 s."""
RETRY_SECONDS = 300
"""How long TorchServe starts a worker again that dies as soon as it starts."""


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Attributes:
        workers: Processes, each with the model in it; on GPUs each gets one of them, in turn.
        threads: Of a call in a worker.
        batch_size: Most requests that a worker answers with one call.
        max_batch_delay_ms: How long a worker waits for a batch to fill; a lonely request waits so long.
        device: ``cpu`` or ``cuda``.
        response_timeout_s: A worker that takes longer is killed, and its batch fails.
        queue_size: Requests that may wait; one more is told to come again.
    """

    workers: int
    threads: int = 1
    batch_size: int = 8
    max_batch_delay_ms: int = 2
    device: Device = "cpu"
    response_timeout_s: int = 30
    queue_size: int = 128


@dataclass(frozen=True)
class Chosen:
    """What a user chose of the settings; the rest is none."""

    workers: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    max_batch_delay_ms: int | None = None

    def applied(self, settings: Settings) -> Settings:
        """The settings, with what was chosen in its place."""
        return replace(settings, **{name: value for name, value in vars(self).items() if value is not None})


def choose_settings(chosen: Chosen, device: Device = "cpu") -> Settings:
    """What was chosen and, for the rest, what serves well on this machine without measuring.

    One worker for each core, up to ``MOST_WORKERS``; what cores there are beyond are threads of each. On a GPU one
    worker.
    """
    if device == "cuda":
        return chosen.applied(Settings(workers=1, device=device))
    cores = this_cpu().cores
    workers = chosen.workers or min(cores // min(chosen.threads or 1, cores), MOST_WORKERS)
    return chosen.applied(Settings(workers, threads=max(1, cores // workers)))


Count: TypeAlias = Annotated[int, Field(ge=1, le=1024, strict=True)]
Seconds: TypeAlias = Annotated[int, Field(ge=1, le=86_400, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HandlerSection(_Strict):
    """What the handler reads."""

    format: FormatName = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", validation_alias=AliasChoices("format", "rung"))
    threads: Count
    device: Device


class ModelConfig(_Strict):
    """The content of ``model-config.yaml``: what TorchServe 0.12 honours there, in its spelling."""

    minWorkers: Count
    maxWorkers: Count
    batchSize: Count
    maxBatchDelay: Annotated[int, Field(ge=0, le=10_000, strict=True)]
    """Milliseconds."""
    responseTimeout: Seconds
    startupTimeout: Seconds
    maxRetryTimeoutInSec: Seconds
    jobQueueSize: Annotated[int, Field(ge=1, le=100_000, strict=True)]
    deviceType: Literal["cpu", "gpu"]
    handler: HandlerSection

    def to_yaml(self, key: Literal["format", "rung"] = "format") -> bytes:
        """The file.

        Args:
            key: What the format is called there: the handlers of older archives read it by another name.
        """
        content = self.model_dump()
        handler = content.pop("handler")
        handler = {key: handler.pop("format"), **handler}
        return yaml.safe_dump({**content, "handler": handler}, sort_keys=False).encode()

    def settings(self) -> Settings:
        """What was chosen of it."""
        return Settings(
            workers=self.maxWorkers,
            threads=self.handler.threads,
            batch_size=self.batchSize,
            max_batch_delay_ms=self.maxBatchDelay,
            device=self.handler.device,
            response_timeout_s=self.responseTimeout,
            queue_size=self.jobQueueSize,
        )


def model_config(settings: Settings, format: FormatName) -> ModelConfig:
    """The file of these settings."""
    return ModelConfig(
        minWorkers=settings.workers,
        maxWorkers=settings.workers,
        batchSize=settings.batch_size,
        maxBatchDelay=settings.max_batch_delay_ms,
        responseTimeout=settings.response_timeout_s,
        startupTimeout=STARTUP_SECONDS,
        maxRetryTimeoutInSec=RETRY_SECONDS,
        jobQueueSize=settings.queue_size,
        deviceType="gpu" if settings.device == "cuda" else "cpu",
        handler=HandlerSection(format=format, threads=settings.threads, device=settings.device),
    )


def format_key(content: bytes) -> Literal["format", "rung"]:
    """What a file calls the format."""
    return "rung" if b"\n  rung: " in content else "format"


def read_model_config(content: bytes) -> ModelConfig:
    """Reads the file as it was written: no other spelling of it, which Java might take for something else.

    Raises:
        BundleError: it isn't one that ``to_yaml`` wrote.
    """
    try:
        config = ModelConfig.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, ValidationError, ValueError, RecursionError) as error:
        first_line = str(error).partition("\n")[0]
        raise BundleError(f"model-config.yaml can't be read ({first_line}): archive the model again") from error
    if config.to_yaml(format_key(content)) != content or config.minWorkers != config.maxWorkers:
        raise BundleError("model-config.yaml isn't as it was written: archive the model again")
    return config
