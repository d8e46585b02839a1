"""The code that an archive carries: the handler, this package and, of a format that needs it, the project's.

The whole packages, not what the handler imports: that are 0.6 MB more, and nothing has to be found out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import trainyard
from trainyard.artifacts.export_record import FormatName
from trainyard.base.project import find_project
from trainyard.formats.table import LIBRARY
from trainyard.torchserve.deployment import deployment_file

HANDLER = "handler.py"
PACKAGE = trainyard.__name__
PROJECT = "project"
"""The folder of an archive that the project's package lies in; serving/handler.py makes it the worker's project."""


def served_code(format: FormatName) -> dict[str, Path]:
    """The code by its names in an archive; ``eager`` and the project's own formats need the project's."""
    roots = {PACKAGE: Path(trainyard.__file__).parent}
    project = find_project() if format == "eager" or format not in LIBRARY else None
    spec = importlib.util.find_spec(project.package) if project else None
    if project and spec and spec.origin:
        roots[f"{PROJECT}/{project.package}"] = Path(spec.origin).parent
    code = {
        f"{name}/{file.relative_to(root).as_posix()}": file
        for name, root in roots.items()
        for file in root.rglob("*.py")
    }
    return {HANDLER: deployment_file(HANDLER), **code}
