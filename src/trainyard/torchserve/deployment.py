"""Where the files lie that are deployed as they are: TorchServe's configuration."""

from __future__ import annotations

from pathlib import Path

from trainyard.base.errors import UsageError

FOLDERS = (Path(__file__).parent / "deployment", Path(__file__).parents[3] / "serving")
"""In an installed package, and in a checkout."""


def deployment_file(name: str) -> Path:
    """A file of the folder ``serving/``.

    Raises:
        UsageError: the package was installed without that folder, which lies beside ``src/``.
    """
    found = next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)
    if found is None:
        raise UsageError(
            f"{name} isn't there, as the package was installed without the folder serving/: "
            "run it from a clone (scripts/setup.sh), or install it as the Dockerfile does"
        )
    return found
