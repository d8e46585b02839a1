"""Trainyard: from a folder of images or a file of texts to a trained, sealed and measured classifier."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trainyard.base.version import VERSION as __version__

if TYPE_CHECKING:
    from trainyard.base.project import Project
    from trainyard.client.client import AsyncClient, Client
    from trainyard.inference.predictor import Predictor

__all__ = ["AsyncClient", "Client", "Predictor", "Project", "__version__"]

_MODULES = {
    "AsyncClient": "trainyard.client.client",
    "Client": "trainyard.client.client",
    "Predictor": "trainyard.inference.predictor",
    "Project": "trainyard.base.project",
}
"""Each is imported when it is asked for: what serves has no client's packages, and nobody waits for what he needn't."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
