"""The kinds of models that the project has. A kind's class is imported when a config or a bundle names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from trainyard.base.errors import UsageError
from trainyard.base.project import find_project

if TYPE_CHECKING:
    from trainyard.config.experiment import Experiment
    from trainyard.models.base import ModelConfig


def experiment_class() -> type[Experiment]:
    """The class of a config file: the project's, or the library's where the project has none of its own."""
    project = find_project()
    if project and project.config:
        return cast("type[Experiment]", project.resolve(project.config))
    from trainyard.config.experiment import Experiment

    return Experiment


def kinds() -> tuple[str, ...]:
    """Their names."""
    project = find_project()
    return tuple(project.models) if project else ()


def model_class(kind: object) -> type[ModelConfig]:
    """The config class of a kind.

    Raises:
        UsageError: the project has no such kind.
    """
    project = find_project()
    if project is None or not isinstance(kind, str) or kind not in project.models:
        known = f"it is one of {', '.join(kinds())}" if kinds() else "no project is installed here that has models"
        raise UsageError(f"model.kind {kind!r} isn't registered: {known}")
    return cast("type[ModelConfig]", project.resolve(project.models[kind]))


def model_classes() -> list[type[ModelConfig]]:
    """The config classes of all kinds; imports all of them."""
    return [model_class(kind) for kind in kinds()]


def parse_model(section: Mapping[str, object]) -> ModelConfig:
    """Reads a ``model`` section, as a bundle keeps it.

    Raises:
        UsageError: its kind isn't registered.
        pydantic.ValidationError: a key or value is wrong.
    """
    return model_class(section.get("kind")).model_validate(dict(section))
