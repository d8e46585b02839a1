"""From ``data.path`` to what is there: which reader reads it, and what to say when nothing is."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from PIL import Image

from trainyard.base.errors import DataError, UsageError
from trainyard.base.project import find_project, require_project
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data import hub
from trainyard.data.examples import find_examples, read_examples
from trainyard.data.folders import read_folder
from trainyard.data.records import Found, Row
from trainyard.preprocess.folders import is_image
from trainyard.preprocess.tables import TABLE_SUFFIXES, table_format

ProjectSource: TypeAlias = Callable[[str, ImagesConfig | TextsConfig], Iterable[Row]]
"""What a project has as a source: from the rest of ``data.path`` and the section to the examples."""

EMBEDDED = {"embedded:digits": "images", "embedded:tickets": "texts"}
"""The data that come with the project, and their kinds: real handwritten digits, and support tickets in four classes
that were written for it, the test split apart from training.
"""
PREFIXES = ("embedded", hub.PREFIX)
"""Words that may stand before a colon in ``data.path``; a project adds its own. All else is a path."""


def read_source(data: ImagesConfig | TextsConfig) -> Found:
    """Reads what ``data.path`` names.

    Raises:
        UsageError: there is no such thing, or not of this kind.
        DataError: it is there, but broken or incomplete.
    """
    prefix, name = _parts(data.path)
    if data.subset is not None and prefix != hub.PREFIX:
        raise UsageError(f"data.subset={data.subset} is for hub datasets, and data.path={data.path} isn't hub:ID")
    if prefix == hub.PREFIX:
        return hub.read_hub(name, data)
    if prefix == "embedded":
        return _read_embedded(data)
    path = local_path(data.path)
    try:
        if prefix:
            source = cast(ProjectSource, require_project().resolve(_project_sources()[prefix]))
            numbered = enumerate(source(name, data), start=1)
            return find_examples(row._replace(where=row.where or f"{data.path}:{i}") for i, row in numbered)
        return read_folder(path, data) if path.is_dir() else _read_file(path, data)
    except OSError as error:
        raise DataError(f"data.path={data.path} can't be read: {error}") from error


def location(path: str) -> str:
    """``data.path`` as a run records it: absolute for local paths, also behind a prefix."""
    prefix, name = _parts(path)
    if not prefix:
        return str(local_path(path))
    return f"{prefix}:{local_path(name)}" if prefix != "embedded" and local_path(name).exists() else path


def _parts(path: str) -> tuple[str, str]:
    """The word of a source and what it is given, as in ``hub`` and ``ID``; without a word where it is a path."""
    prefix, colon, name = path.partition(":")
    return (prefix, name) if colon and prefix in (*PREFIXES, *_project_sources()) else ("", path)


def _project_sources() -> Mapping[str, str]:
    project = find_project()
    return project.sources if project else {}


def _read_embedded(data: ImagesConfig | TextsConfig) -> Found:
    if data.path not in EMBEDDED:
        raise UsageError(f"data.path={data.path} doesn't exist: the embedded datasets are {', '.join(EMBEDDED)}")
    if (kind := EMBEDDED[data.path]) != data.kind:
        raise UsageError(f"data.path={data.path} holds {kind}: say data.kind={kind}")
    if kind == "texts":
        folder = Path(__file__).parent / "tickets"
        return read_folder(folder, TextsConfig(kind="texts", path=str(folder)))
    return find_examples(_digits())


def _digits() -> Iterator[Row]:
    """1,797 digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), undivided."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, pixels in enumerate(np.rint(digits.images * (255 / 16)).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        yield Row(file.getvalue(), int(digits.target[i]), where=f"digits:{i}")


def local_path(path: str) -> Path:
    """An absolute path, ``~`` expanded."""
    return Path(path).expanduser().absolute()


def _read_file(path: Path, data: ImagesConfig | TextsConfig) -> Found:
    if not path.exists():
        raise _missing(path, data)
    if not path.is_file():
        raise UsageError(f"data.path={data.path} isn't a regular file: give a folder or a table")
    if table_format(path):
        return read_examples(path, path.name, data)
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
    near_embedded = [name for name in EMBEDDED if data.path.lower() in name]
    suggestions = [str(missing.parent / name) for name in near] + near_embedded
    of_project = "".join(f"; of this project: {prefix}:..." for prefix in _project_sources())
    instead = f"did you mean {' or '.join(suggestions)}?" if suggestions else "give a folder or a table"
    return UsageError(
        f"data.path={data.path} doesn't exist ({missing} isn't there): {instead} "
        f"(embedded data: {', '.join(EMBEDDED)}; a Hugging Face dataset: {hub.PREFIX}:ID{of_project})"
    )
