"""Loads the model that the formats are made from."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.artifacts.bundle import Bundle
from trainyard.base.cpu import this_cpu
from trainyard.formats.source import Graph, Source
from trainyard.models.restore import open_classifier
from trainyard.preprocess.base import Item


def load_source(bundle: Bundle, items: Sequence[Item]) -> Source:
    """Loads a bundle's model.

    Args:
        bundle: The bundle.
        items: Training examples to calibrate with, at least ``EXAMPLES``.

    Raises:
        BundleError: the weights don't fit.
    """
    classifier = open_classifier(bundle)
    calibration = bundle.preprocessor.encode_many(items)
    names = tuple(bundle.preprocessor.collate(calibration[:1]))
    return Source(
        graph=Graph(classifier, names).eval(),
        names=names,
        calibration=calibration,
        bundle=bundle,
        cpu=this_cpu(),
    )
