"""The scores of a split with the project's own metrics among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from trainyard.base.errors import TrainyardError
from trainyard.base.project import find_project
from trainyard.config.experiment import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from trainyard.heads.base import Head
    from trainyard.heads.scores import Scores

Metric: TypeAlias = "Callable[[Tensor, Tensor], float]"
"""From logits ``[examples, classes] float32`` and labels ``[examples] int64`` of a whole split, both on the CPU."""
AnyMetric = TypeVar("AnyMetric", bound=Callable[..., float])

LESS_IS_BETTER = ("loss", "ece")
_MARK = "less_is_better"


def less_is_better(metric: AnyMetric) -> AnyMetric:
    """Marks a metric of a project, such as an error rate: ``trainer.monitor`` then looks for the least."""
    setattr(metric, _MARK, True)
    return metric


def measure(head: Head, logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """Scores a split as its head does, and by the project's metrics, where there is a project.

    Raises:
        TrainyardError: a metric gave no finite number.
        DataError: as ``Head.scores``.
    """
    scores = head.scores(logits, labels, classes)
    project = find_project()
    own = {name: float(_metric(name)(logits, labels)) for name in (project.metrics if project else ())}
    for name, value in own.items():
        if not math.isfinite(value):
            raise TrainyardError(f"the project's metric {name} is {value}: let it return a finite number")
    return replace(scores, metrics=own)


def ranked(name: str, value: float) -> float:
    """A metric's value, signed so that more is better."""
    less = name in LESS_IS_BETTER if name in METRICS else getattr(_metric(name), _MARK, False)
    return -value if less else value


def _metric(name: str) -> Metric:
    project = find_project()
    assert project is not None, "only a project has metrics of its own"
    return cast(Metric, project.resolve(project.metrics[name]))
