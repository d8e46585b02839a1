"""The bundle: a trained model with all that is needed to use it, sealed under one digest."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from trainyard.artifacts.manifest import MANIFEST, verify
from trainyard.base.errors import BundleError, UsageError
from trainyard.preprocess.base import Kind, Preprocessor, load_preprocessor

FACTS = "trainyard.json"
WEIGHTS = "model.safetensors"
SAMPLES = "samples"
CALIBRATION = "calibration.jsonl"
GOLDEN = "golden.jsonl"
SCHEMA_VERSION = 1

Json = dict[str, object]


class DataFacts(BaseModel):
    """Which data a model was trained on."""

    config: Json
    """The config's ``data`` section, with an absolute path."""
    location: str
    fingerprint: str
    """SHA-256 over the contents and labels of all splits."""
    report: Json
    """Counts, and what was skipped: the run's ``data_report.json``."""


class Covered(BaseModel):
    """The answers of a split that are certain."""

    coverage: float
    """Their share of all."""
    accuracy: float | None
    """The share of them that is right; null if there are none."""


class Certainty(BaseModel):
    """From which probability on an answer is certain; the others are marked as uncertain."""

    target_accuracy: float
    """The share of certain answers that is to be right."""
    threshold: float | None
    """The least probability of a certain answer; null if none is high enough, and all are uncertain."""
    val: Covered
    test: Covered

    def is_uncertain(self, probability: float) -> bool:
        """Whether an answer with this probability is to be marked."""
        return self.threshold is None or probability < self.threshold


class BundleFacts(BaseModel):
    """The content of ``trainyard.json``."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: int
    name: str
    created: str
    task: Literal["image-classification", "text-classification"]
    model: Json
    """The config's ``model`` section, without pretrained weights."""
    preprocess: Json
    labels: list[str]
    temperature: float
    """Divides the logits before the softmax. It is 1 in what we write: the fitted temperature lies in the output
    layer's weights already, so that a consumer that doesn't know of it is calibrated too."""
    fitted_temperature: float
    """The temperature that was fitted on the validation split (Guo et al. 2017) and divided into the output layer."""
    metrics: Json
    """Scores of the ``val`` and ``test`` splits, with per-class figures and the confusion matrix."""
    training: Json
    environment: Json
    data: DataFacts
    drift_reference: Json
    """What live traffic is compared with; see ``DriftReference``."""
    certainty: Certainty | None = None
    """Which answers are uncertain; null if no ``evaluation.target_accuracy`` was wanted."""

    @property
    def kind(self) -> Kind:
        """What an item is; the preprocessor's, without loading it."""
        return cast("Kind", self.task.removesuffix("-classification"))


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: Its folder.
        digest: SHA-256 of its manifest: its name wherever it lies.
        facts: The content of ``trainyard.json``.
    """

    path: Path
    digest: str
    facts: BundleFacts

    @staticmethod
    def open(run: Path) -> Bundle:
        """Opens a bundle, or that of a run folder, and compares each file with the manifest.

        Raises:
            UsageError: there is no bundle.
            BundleError: a file is changed, missing or additional, or the bundle was written by a newer version.
        """
        return Bundle.read(find_bundle(run))

    @staticmethod
    def read(path: Path, expect: str | None = None, left_out: Collection[str] = ()) -> Bundle:
        """Opens the bundle in this folder and compares each file with the manifest.

        Raises:
            UsageError, BundleError: see ``verify``; or the bundle was written by a newer version.
        """
        return Bundle(path, verify(path, expect, left_out), read_facts(path))

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self.facts.labels

    @property
    def kind(self) -> Kind:
        """What an item is."""
        return self.facts.kind

    @property
    def reads_pairs(self) -> bool:
        """Whether an item is a pair of texts."""
        return bool(self.facts.data.config.get("pair"))

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """Turns raw items into the model's inputs."""
        return load_preprocessor(self.facts.preprocess, self.path)


def find_bundle(run: Path) -> Path:
    """The bundle of ``run``, which is a bundle, a run folder, or the folder of an experiment with a ``latest`` run.

    Raises:
        UsageError: none of them.
    """
    for path in (run, run / "bundle", run / "latest" / "bundle"):
        if (path / MANIFEST).is_file() and (path / FACTS).is_file():
            return path.resolve()
    if (run / "config.yaml").is_file():
        raise UsageError(f"the run {run} has no bundle: it hasn't finished; go on with trainer.resume={run}")
    if (run / FACTS).is_file():
        raise BundleError(f"{run} has no {MANIFEST}: it isn't a sealed bundle; use the original")
    raise UsageError(f"{run} is neither a run folder nor a bundle; a run folder is what trainyard train printed last")


def read_facts(folder: Path) -> BundleFacts:
    """Reads ``trainyard.json``.

    Raises:
        BundleError: it doesn't hold what it should, or is of a newer version.
    """
    try:
        content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{folder} has schema version {version}, this trainyard reads {SCHEMA_VERSION}; update it"
            )
        return BundleFacts.model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise BundleError(f"{folder}: {FACTS} can't be read ({error}); use the original") from error
