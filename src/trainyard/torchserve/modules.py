"""The modules of this package that serve, found by following their imports: an archive carries a copy of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import trainyard
from trainyard.torchserve.deployment import deployment_file

HANDLER = "handler.py"
PACKAGE = trainyard.__name__
ROOT = Path(trainyard.__file__).parent
MAKING = f"{PACKAGE}.formats.making"
"""What makes formats, which are made before they are served."""


def served_code(with_models: bool) -> dict[str, Path]:
    """The handler and what it imports of this package, by their names in an archive.

    Args:
        with_models: Brings all models: ``eager`` finds the class of its model by a name in its config.
    """
    handler = deployment_file(HANDLER)
    models = (f"{PACKAGE}.models.{path.stem}" for path in (ROOT / "models").glob("*.py")) if with_models else ()
    found: dict[str, Path] = {}
    _follow([*_imported(handler), *models], found)
    return {HANDLER: handler, **found}


def _follow(modules: Iterable[str], found: dict[str, Path]) -> None:
    """Adds the files of those modules that are of this package, and of what they import, in functions too."""
    for module in modules:
        path = _module_file(module)
        name = path.relative_to(ROOT.parent).as_posix() if path else ""
        if path and name not in found and not module.startswith(MAKING):
            found[name] = path
            _follow(_imported(path), found)


def _imported(file: Path) -> Iterator[str]:
    """Names of modules that a file imports, with the packages that they lie in; some may be names within modules."""
    for node in ast.walk(ast.parse(file.read_bytes(), file)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _module_file(module: str) -> Path | None:
    if module.partition(".")[0] != PACKAGE:
        return None
    path = ROOT.parent.joinpath(*module.split("."))
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((place for place in places if place.is_file()), None)
