"""The modules that serve, found by following their imports: an archive carries a copy of them.

They are this package's and, of a format that needs the project's code, those of the project.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

import trainyard
from trainyard.artifacts.export_record import FormatName
from trainyard.base.project import Project, find_project
from trainyard.formats.table import LIBRARY
from trainyard.torchserve.deployment import deployment_file

HANDLER = "handler.py"
PACKAGE = trainyard.__name__
ROOT = Path(trainyard.__file__).parent
MAKING = f"{PACKAGE}.formats.making"
"""What makes formats, which are made before they are served."""
PROJECT = "project"
"""The folder of an archive that the project's package lies in; serving/handler.py makes it the worker's project."""


def served_code(format: FormatName) -> dict[str, Path]:
    """The handler and what it imports, by their names in an archive.

    ``eager`` finds the class of its model by a name in its config, so that it brings all models of the project; a
    format of the project's own brings its class.
    """
    handler = deployment_file(HANDLER)
    found: dict[str, Path] = {}
    _follow(_imported(handler, ""), None, found)
    project = find_project() if format == "eager" or format not in LIBRARY else None
    if project:
        names = project.models.values() if format == "eager" else filter(None, [project.formats.get(format)])
        modules = (importlib.util.resolve_name(name.partition(":")[0], project.package) for name in names)
        _follow([project.package, *modules], project, found)
    return {HANDLER: handler, **found}


def _follow(modules: Iterable[str], project: Project | None, found: dict[str, Path]) -> None:
    """Adds the files of those modules that are ours or the project's, and of what they import, in functions too."""
    for module in modules:
        owner = module.partition(".")[0]
        if module.startswith(MAKING) or owner not in (PACKAGE, project.package if project else PACKAGE):
            continue
        root = ROOT if owner == PACKAGE else _folder_of(owner)
        path = root.parent.joinpath(*module.split("."))
        places = (path.with_suffix(".py"), path / "__init__.py")
        file = next((place for place in places if place.is_file()), None)
        name = file.relative_to(root.parent).as_posix() if file else ""
        name = name if owner == PACKAGE else f"{PROJECT}/{name}"
        if file and name not in found:
            found[name] = file
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            _follow(_imported(file, package), project, found)


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} was imported"
    assert spec.origin is not None, f"{package} has an __init__.py"
    return Path(spec.origin).parent


def _imported(file: Path, package: str) -> Iterator[str]:
    """Names of modules that a file imports, with the packages that they lie in; some may be names within modules.

    Args:
        file: The module's.
        package: That it lies in, for relative imports.
    """
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
