"""A bundle's model, built anew with its weights."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from trainyard.artifacts.bundle import WEIGHTS, Bundle, BundleFacts
from trainyard.artifacts.samples import Sample, golden_samples
from trainyard.base.errors import BundleError
from trainyard.config.kinds import parse_model
from trainyard.models.base import Task
from trainyard.models.classifier import Classifier
from trainyard.models.weights import with_tied_names
from trainyard.preprocess.base import Preprocessor

log = logging.getLogger(__name__)

REPLAYED = 2
"""Golden requests that tell whether the code is still what it was; more would only make opening slower."""
TOLERANCE = 1e-3
"""Of a probability: another processor, or another version of torch, rounds otherwise."""


def open_classifier(bundle: Bundle) -> Classifier:
    """Restores a sealed model, and has it answer golden requests as it did when it was sealed.

    A bundle holds weights and no code: they fit a network whose activation was changed since, which answers wrong.

    Raises:
        UsageError: the project has no such kind of model.
        BundleError: the weights don't fit the model's config, or the code has changed.
    """
    classifier = restore_classifier(bundle.path, bundle.facts, bundle.preprocessor)
    samples = golden_samples(bundle.path)[:REPLAYED]
    if not samples:
        log.debug("%s carries no golden requests: whether its model's code has changed can't be seen", bundle.path)
    for sample in samples:
        _replay(sample, classifier, bundle)
    return classifier


def _replay(sample: Sample, classifier: Classifier, bundle: Bundle) -> None:
    """Raises ``BundleError`` if the answer isn't the sealed one: alone, on the CPU and in float32, as it was given."""
    inputs = bundle.preprocessor.collate([bundle.preprocessor.encode(sample.item)])
    with torch.no_grad():
        logits = classifier(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    answer, sealed = logits[0].softmax(dim=0).numpy(), np.array(sample.probabilities, dtype=np.float32)
    if np.allclose(answer, sealed, rtol=0, atol=TOLERANCE, equal_nan=True):
        return
    worst = int(np.abs(answer - sealed).argmax())
    raise BundleError(
        f"{bundle.path}: the model's code has changed since it was sealed: it answers a golden request with "
        f"{answer[worst]:.4f} for {bundle.labels[worst]}, where {sealed[worst]:.4f} is sealed; "
        "put the code back, use an exported format, or train again"
    )


def restore_classifier(folder: Path, facts: BundleFacts, preprocessor: Preprocessor) -> Classifier:
    """Builds a bundle's model with its weights, in evaluation mode on the CPU; for use, see ``open_classifier``.

    Raises:
        UsageError: the project has no such kind of model.
        BundleError: the weights don't fit the model's config.
    """
    classifier = parse_model(facts.model).restore(Task(tuple(facts.labels), preprocessor), folder)
    try:
        state = load_file(folder / WEIGHTS)
        classifier.network.load_state_dict(with_tied_names(classifier.network, state))
    except RuntimeError as error:
        raise BundleError(f"{folder}: {WEIGHTS} doesn't fit the model's config; use the original") from error
    return classifier.eval()
