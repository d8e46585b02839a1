"""All heads. A new one is a class in a file of its own, and a line here."""

from __future__ import annotations

from trainyard.artifacts.bundle import Bundle
from trainyard.heads.base import Head
from trainyard.heads.single_label import SingleLabel

HEADS: dict[str, Head] = {head.name: head for head in (SingleLabel(),)}


def head_of(bundle: Bundle) -> Head:
    """The head that a bundle was trained with: the second word of its task, as in ``image-classification``."""
    return HEADS[bundle.facts.task.partition("-")[2]]
