"""A bundle's model, built anew with its weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from trainyard.artifacts.bundle import WEIGHTS, BundleFacts
from trainyard.base.errors import BundleError
from trainyard.config.kinds import parse_model
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier
from trainyard.preprocess.preprocessor import Preprocessor


def restore_classifier(folder: Path, facts: BundleFacts, preprocessor: Preprocessor) -> Classifier:
    """Builds a bundle's model with its weights, in evaluation mode on the CPU.

    Raises:
        UsageError: the project has no such kind of model.
        BundleError: the weights don't fit the model's config.
    """
    classifier = parse_model(facts.model).restore(Task(tuple(facts.labels), preprocessor), folder)
    try:
        classifier.network.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise BundleError(f"{folder}: {WEIGHTS} doesn't fit the model's config; use the original") from error
    return classifier.eval()
