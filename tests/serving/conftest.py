"""Runs with an export, as they are served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def exported(run: Path, folder: Path) -> Path:
    """A run folder with a bundle and an export of its ONNX rung."""
    from trainyard.core.bundle import Bundle
    from trainyard.export import rank
    from trainyard.export.ladder import Options, export

    shutil.copytree(run / "bundle", folder / "bundle")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rank, "SECONDS", 0.5)  # its speed doesn't matter here
        export(Bundle.open(folder), Options(("onnx",), threads=1), [])
    return folder


@pytest.fixture(scope="session")
def exported_images(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads digits and has an ONNX export; don't change it."""
    return exported(image_run, tmp_path_factory.mktemp("exported") / "images")


@pytest.fixture(scope="session")
def exported_texts(text_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads tickets and has an ONNX export; don't change it."""
    return exported(text_run, tmp_path_factory.mktemp("exported") / "texts")
