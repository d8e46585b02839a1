"""The owner's project, as the library sees it: names, each of which is resolved when it is needed and not before.

A run of a ResNet then imports no transformers, and a server that needs nothing of the owner's code imports none of it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from trainyard.base.errors import UsageError

VARIABLE = "TRAINYARD_PROJECT"
"""Environment variable that names the project's package, where there are several or none is installed."""
GROUP = "trainyard.project"
"""The group of entry points by which an installed project is found."""
ATTRIBUTE = "project"
"""What a project's package calls its ``Project``."""


@dataclass(frozen=True)
class Project:
    """What a project adds to the library, as ``module:name``; a leading dot is its own package.

    Args:
        package: The package's name, ``__name__``.
        config: The class of a config file: the library's ``Experiment`` with the project's own sections.
        run: The function that takes such a config, trains, and returns the run directory.
        metrics: The function of each metric that is measured besides the library's.
        models: The config class of each kind of model.
        sources: The function that reads a ``data.path`` which begins with this word and a colon.
        formats: The class of each format that the project adds to the library's.
        templates: The package's folder of templates, as the model card's.
    """

    package: str
    config: str = ""
    run: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    templates: str = ""

    def resolve(self, name: str) -> object:
        """Imports what a name stands for.

        Raises:
            ImportError, AttributeError: there is no such thing.
        """
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module, self.package), attribute)

    def names(self) -> Iterator[str]:
        """Every name, for a test that resolves them all."""
        yield from filter(None, (self.config, self.run))
        for table in (self.metrics, self.models, self.sources, self.formats):
            yield from table.values()


def find_project() -> Project | None:
    """The project of this environment: the one that ``TRAINYARD_PROJECT`` names, or the one that is installed.

    Raises:
        UsageError: several are installed, or the variable names none.
    """
    return _find(os.environ.get(VARIABLE))


def require_project() -> Project:
    """As ``find_project``, where nothing can be done without one.

    Raises:
        UsageError: there is none.
    """
    project = find_project()
    if project is None:
        raise UsageError(f"there is no project here: run scripts/setup.sh in your clone, or set {VARIABLE}=its_package")
    return project


@cache
def _find(package: str | None) -> Project | None:
    if package:
        return _load(package, ATTRIBUTE)
    from importlib.metadata import entry_points  # takes longer to import than all else that --help needs

    found = {point.value: point for point in entry_points(group=GROUP)}
    if len(found) > 1:
        names = ", ".join(sorted(point.module for point in found.values()))
        raise UsageError(f"several projects are installed here ({names}): choose one by {VARIABLE}=..., or remove one")
    return next((_load(point.module, point.attr) for point in found.values()), None)


def _load(package: str, attribute: str) -> Project:
    try:
        project = getattr(importlib.import_module(package), attribute)
    except ImportError as error:
        if error.name != package.partition(".")[0]:
            raise  # a fault within the package: its traceback says more
        raise UsageError(f"the project {package} can't be imported: run scripts/setup.sh, or set {VARIABLE}") from error
    assert isinstance(project, Project), f"{package}.{attribute} is no Project"
    return project
