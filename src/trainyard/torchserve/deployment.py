"""What is deployed as it is: the files of ``serving/``, and the code that an archive carries.

That code are whole packages, not what the handler imports: 0.6 MB more, and nothing has to be found out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import trainyard
from trainyard.artifacts.export_record import FormatName
from trainyard.base.errors import UsageError
from trainyard.base.project import find_project
from trainyard.formats.table import LIBRARY

INSTALLED = Path(__file__).parent / "deployment"
"""Where the image has them."""
CHECKOUT = Path(__file__).parents[3] / "serving"
HANDLER = "handler.py"
PACKAGE = trainyard.__name__
PROJECT = "project"
"""The folder of an archive that the project's package lies in; serving/handler.py makes it the worker's project."""


def deployment_file(name: str) -> Path:
    """A file of the folder ``serving/``: the project's own, also where the library is an installed wheel.

    Raises:
        UsageError: project and library were installed without that folder, which lies beside ``src/``.
    """
    found = next(filter(Path.is_file, (INSTALLED / name, CHECKOUT / name)), None)
    # Last, where the library is a wheel: else serving its own formats would need the project's code.
    if found is None and (own := _own_package()):
        found = own.parents[1] / "serving" / name
    if found is None or not found.is_file():
        raise UsageError(
            f"{name} isn't there, as the package was installed without the folder serving/: "
            "run it from a clone (scripts/setup.sh), or install it as the Dockerfile does"
        )
    return found


def served_code(format: FormatName) -> dict[str, Path]:
    """The code by its names in an archive; ``eager`` and the project's own formats need the project's."""
    roots = {PACKAGE: Path(trainyard.__file__).parent}
    if (format == "eager" or format not in LIBRARY) and (own := _own_package()):
        roots[f"{PROJECT}/{own.name}"] = own
    code = {
        f"{name}/{file.relative_to(root).as_posix()}": file
        for name, root in roots.items()
        for file in root.rglob("*.py")
    }
    return {HANDLER: deployment_file(HANDLER), **code}


def _own_package() -> Path | None:
    """The folder of the project's package, if there is a project."""
    project = find_project()
    spec = importlib.util.find_spec(project.package) if project else None
    return Path(spec.origin).parent if spec and spec.origin else None
