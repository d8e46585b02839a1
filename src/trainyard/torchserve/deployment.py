"""Where the files lie that are deployed as they are: TorchServe's configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from trainyard.base.errors import UsageError
from trainyard.base.project import find_project

INSTALLED = Path(__file__).parent / "deployment"
"""Where the image has them."""
CHECKOUT = Path(__file__).parents[3] / "serving"


def deployment_file(name: str) -> Path:
    """A file of the folder ``serving/``: the project's own, also where the library is an installed wheel.

    Raises:
        UsageError: project and library were installed without that folder, which lies beside ``src/``.
    """
    found = next((folder / name for folder in _folders() if (folder / name).is_file()), None)
    if found is None:
        raise UsageError(
            f"{name} isn't there, as the package was installed without the folder serving/: "
            "run it from a clone (scripts/setup.sh), or install it as the Dockerfile does"
        )
    return found


def _folders() -> Iterator[Path]:
    yield INSTALLED
    yield CHECKOUT
    # Last, where the library is a wheel: else serving its own formats would need the project's code.
    project = find_project()
    spec = importlib.util.find_spec(project.package) if project else None
    if spec and spec.origin:
        yield Path(spec.origin).parents[2] / "serving"
