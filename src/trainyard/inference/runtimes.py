"""Loads a format of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FormatName
from trainyard.formats.base import Runtime
from trainyard.formats.eager import Eager
from trainyard.formats.table import find_format

if TYPE_CHECKING:
    from torch import nn


def open_runtime(
    name: FormatName, bundle: Bundle, file: Path | None = None, device: str | None = None, threads: int | None = None
) -> Runtime:
    """Loads a format.

    Args:
        name: Which.
        bundle: The bundle that it is of; all there is to ``eager``.
        file: The format's file in an export.
        device: A torch device; by default a GPU for what is made for one, and for ``eager`` if there is one.
        threads: Of one call; by default the library's own number.

    Raises:
        UsageError: there is no such format.
        ModuleNotFoundError: the format's package isn't installed.
        BundleError: the file can't be loaded.
    """
    format = find_format(name)
    if isinstance(format, Eager):

        def restore() -> nn.Module:
            from trainyard.models.restore import open_classifier

            return open_classifier(bundle)

        return format.open_model(restore, device, threads)
    assert file is not None, f"{name} is a file"
    return format.open(file, device or ("cuda" if format.device == "gpu" else None), threads)
