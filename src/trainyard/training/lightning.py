"""Lightning, without the metrics of sounds, texts and pictures that it would bring along."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from types import ModuleType

METRICS = "torchmetrics"


class _Recognised(type):
    """Classes of a package that may be imported later: until it is, nothing can be an instance of them."""

    def __instancecheck__(cls, instance: object) -> bool:
        real = sys.modules.get(METRICS)
        return real is not None and isinstance(instance, getattr(real, cls.__name__))


def import_lightning() -> None:
    """Imports ``lightning.fabric`` in a quarter of the time; call it before anything else of Lightning's is imported.

    Lightning imports torchmetrics to ask its version and to know its classes when a ``LightningModule`` logs one. That
    imports scipy.signal, matplotlib and models of transformers: 3.5 s of each start, for metrics that nobody here asks
    for. So a stand-in takes its place meanwhile. Who imports torchmetrics, before or afterwards, gets the real one, and
    Lightning knows its classes by name then.
    """
    if METRICS not in sys.modules and "lightning" not in sys.modules:
        stand_in = ModuleType(METRICS)
        stand_in.__spec__ = importlib.util.find_spec(METRICS)
        stand_in.__dict__["__version__"] = importlib.metadata.version(METRICS)
        for name in ("Metric", "MetricCollection"):
            stand_in.__dict__[name] = _Recognised(name, (), {})
        sys.modules[METRICS] = stand_in
        try:
            importlib.import_module("lightning.fabric")
        finally:
            del sys.modules[METRICS]
