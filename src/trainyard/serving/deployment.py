"""Where the files lie that are deployed as they are: TorchServe's configuration."""

from __future__ import annotations

from pathlib import Path

FOLDERS = (Path(__file__).parent / "deployment", Path(__file__).parents[3] / "serving")
"""In an installed package, and in a checkout."""


def deployment_file(name: str) -> Path:
    """A file of the folder ``serving/``."""
    found = next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)
    assert found is not None, f"{name} is neither in {FOLDERS[0]} nor in {FOLDERS[1]}"
    return found
