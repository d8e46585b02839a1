"""Loads the model that the formats are made from."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard.artifacts.bundle import Bundle
from trainyard.base.cpu import this_cpu
from trainyard.formats.source import BATCH, LENGTH, Graph, Source
from trainyard.models.restore import open_classifier
from trainyard.preprocess.preprocessor import Item, TextPreprocessor, encode_all


def load_source(bundle: Bundle, items: Sequence[Item]) -> Source:
    """Loads a bundle's model.

    Args:
        bundle: The bundle.
        items: Training examples to calibrate with, at least ``EXAMPLES``.

    Raises:
        BundleError: the weights don't fit.
    """
    classifier = open_classifier(bundle)
    calibration = encode_all(bundle.preprocessor, items)
    is_text = isinstance(bundle.preprocessor, TextPreprocessor)
    names = tuple(bundle.preprocessor.collate(calibration[:1]))
    dimensions = {0: BATCH, 1: LENGTH} if is_text else {0: BATCH}
    return Source(
        graph=Graph(classifier, names).eval(),
        names=names,
        dynamic=dict.fromkeys(names, dimensions),
        calibration=calibration,
        bundle=bundle,
        cpu=this_cpu(),
    )
