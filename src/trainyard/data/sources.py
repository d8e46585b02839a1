"""From ``data.path`` to what is there: which reader reads it, and what to say when nothing is."""

from __future__ import annotations

import difflib
from pathlib import Path

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data import embedded_sets, hub
from trainyard.data.examples import read_examples
from trainyard.data.folders import read_folder
from trainyard.data.records import Found
from trainyard.data.tables import TABLE_SUFFIXES, TableFile
from trainyard.preprocess.folders import is_image


def read_source(data: ImagesConfig | TextsConfig) -> Found:
    """Reads what ``data.path`` names.

    Raises:
        UsageError: there is no such thing, or not of this kind.
        DataError: it is there, but broken or incomplete.
    """
    if data.path.startswith(hub.PREFIX):
        return hub.read_hub(data.path.removeprefix(hub.PREFIX), data)
    if data.subset is not None:
        raise UsageError(f"data.subset={data.subset} is for hub datasets, and data.path={data.path} isn't hub:ID")
    if data.path.startswith(embedded_sets.PREFIX):
        return embedded_sets.read_embedded(data.path.removeprefix(embedded_sets.PREFIX), data)
    path = local_path(data.path)
    try:
        return read_folder(path, data) if path.is_dir() else _read_file(path, data)
    except OSError as error:
        raise DataError(f"data.path={data.path} can't be read: {error}") from error


def location(path: str) -> str:
    """``data.path`` as a run records it: absolute for local paths."""
    if path.startswith(embedded_sets.PREFIX):
        return path
    if path.startswith(hub.PREFIX):
        folder = local_path(path.removeprefix(hub.PREFIX))
        return f"{hub.PREFIX}{folder}" if folder.is_dir() else path
    return str(local_path(path))


def local_path(path: str) -> Path:
    """An absolute path, ``~`` expanded."""
    return Path(path).expanduser().absolute()


def _read_file(path: Path, data: ImagesConfig | TextsConfig) -> Found:
    if not path.exists():
        raise _missing(path, data)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return read_examples(TableFile(path, path.name, data.header), data)
    if is_image(path):
        raise UsageError(f"data.path={data.path} is one image: give the folder of the class folders")
    raise UsageError(f"data.path={data.path} is no table: it may end in {', '.join(TABLE_SUFFIXES)}")


def _missing(path: Path, data: ImagesConfig | TextsConfig) -> UsageError:
    """Suggests what has a similar name in the deepest folder that exists."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    names = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=3)
    near_embedded = [name for name in embedded_sets.names() if data.path.lower() in name]
    suggestions = [str(missing.parent / name) for name in near] + near_embedded
    instead = f"did you mean {' or '.join(suggestions)}?" if suggestions else "give a folder or a table"
    return UsageError(
        f"data.path={data.path} doesn't exist ({missing} isn't there): {instead} "
        f"(embedded data: {', '.join(embedded_sets.names())}; a Hugging Face dataset: {hub.PREFIX}ID)"
    )
