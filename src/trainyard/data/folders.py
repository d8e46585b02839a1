"""Finding examples in folders: classes as folders, tables as files, divided by name or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import merge, read_examples
from trainyard.data.records import Found, Rows, Split, split_named
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import files_below, is_image
from trainyard.preprocess.tables import TABLE_SUFFIXES, table_format


def read_folder(folder: Path, data: ImagesConfig | TextsConfig) -> Found:
    """Reads a folder: one folder or table per split, or undivided.

    Raises:
        DataError: nothing in it looks like data, or a split is there twice.
    """
    entries = _visible(folder)
    tables = [entry for entry in entries if _is_table(entry)]
    folders = [entry for entry in entries if entry.is_dir()]
    divided = _by_split([entry for entry in folders if _is_split_folder(entry)], lambda entry: entry.name)
    if divided:
        found = merge([_read_split(paths[0], split, folder, data) for split, paths in divided.items()])
        used = [path for paths in divided.values() for path in paths]
        found.warnings += _ignored([entry for entry in folders + tables if entry not in used])
        return found
    if tables:
        return _read_tables(tables, folder, data)
    if isinstance(data, ImagesConfig) and folders:
        return _read_classes(folder, folder, "train")
    layouts = "<split>/<class>/file, <class>/file or tables" if isinstance(data, ImagesConfig) else "tables"
    raise DataError(f"{folder} holds no {data.kind} as {layouts} ({', '.join(TABLE_SUFFIXES)})")


def _read_split(folder: Path, split: Split, root: Path, data: ImagesConfig | TextsConfig) -> Found:
    """What one split's folder holds: tables, or a folder per class."""
    tables = [entry for entry in _visible(folder) if _is_table(entry)]
    if tables:
        return merge([read_examples(path, str(path.relative_to(root)), data, split) for path in tables])
    if isinstance(data, ImagesConfig):
        return _read_classes(folder, root, split)
    raise DataError(f"{folder} holds no tables ({', '.join(TABLE_SUFFIXES)})")


def _read_tables(tables: Sequence[Path], folder: Path, data: ImagesConfig | TextsConfig) -> Found:
    """Tables beside each other: one per split if their names say so, else parts of one undivided table."""
    divided = _by_split(tables, _split_of_file)
    if not divided:
        return merge([read_examples(path, path.name, data) for path in tables])
    found = merge([read_examples(path, path.name, data, split) for split, paths in divided.items() for path in paths])
    found.warnings += _ignored([path for path in tables if not split_named(_split_of_file(path))])
    return found


def _read_classes(folder: Path, root: Path, split: Split) -> Found:
    """Images below a folder per class, at any depth; other files are passed over, with a warning."""
    items: list[Item] = []
    labels: list[str] = []
    others: list[Path] = []
    for class_folder in (entry for entry in _visible(folder) if entry.is_dir()):
        for path in files_below(class_folder, above=(root, folder)):
            if is_image(path):
                items.append(path)
                labels.append(class_folder.name)
            else:
                others.append(path)
    start = len(str(root)) + 1  # much faster than relative_to
    found = Found({split: Rows(items, labels, [str(path)[start:] for path in items])} if items else {})
    loose = [entry for entry in _visible(folder) if is_image(entry) and entry.is_file()]
    found.warnings += _unused(
        loose, root, "images lie beside the folders of the classes", "move them into one, or away"
    )
    found.warnings += _unused(others, root, "files aren't images by their suffix", "convert them, or move them away")
    return found


def _unused(paths: Sequence[Path], root: Path, what: str, fix: str) -> list[str]:
    """A warning, if there are any. It names a relative path: the model card shows it to strangers."""
    if not paths:
        return []
    return [f"{len(paths):,} {what} and aren't used (the first: {paths[0].relative_to(root)}): {fix}"]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_table(path: Path) -> bool:
    # A .json beside data is seldom a table; one that is can be named by data.path.
    return table_format(path) not in ("", ".json") and path.is_file()


def _is_split_folder(folder: Path) -> bool:
    """Whether a folder with the name of a split is one: a class may be called `train`, too, and holds images.

    A split may hold stray images as well; then its classes, or its tables, tell that it is one.
    """
    if split_named(folder.name) is None:
        return False
    entries = _visible(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    if any(_is_table(entry) for entry in entries):
        return True
    if not any(is_image(entry) and entry.is_file() for entry in entries):
        return bool(folders)
    return any(is_image(path) for below in folders for path in files_below(below))


def _split_of_file(path: Path) -> str:
    """``train`` of ``train.csv`` and of ``train-00000-of-00002.parquet`` (the hub's layout)."""
    stem = Path(path.name.removesuffix(".gz")).stem
    name, _, part = stem.partition("-")
    return name if not part or part[:1].isdigit() else stem


def _by_split(paths: Sequence[Path], name: Callable[[Path], str]) -> dict[Split, list[Path]]:
    divided: dict[Split, list[Path]] = {}
    for path in paths:
        split = split_named(name(path))
        if split is not None:
            divided.setdefault(split, []).append(path)
    for split, same in divided.items():
        first = same[0]
        if any(path.is_dir() or name(path) != name(first) or path.suffix != first.suffix for path in same[1:]):
            raise DataError(f"{first.parent} has the {split} split twice: {', '.join(path.name for path in same)}")
    return divided


def _ignored(paths: Sequence[Path]) -> list[str]:
    if not paths:
        return []
    listed = ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")
    return [
        f"{len(paths):,} entries belong to no split and aren't used ({listed}): name them train, val or test, "
        "or move them away"
    ]
