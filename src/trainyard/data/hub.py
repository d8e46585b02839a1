"""Hugging Face datasets: from the hub, from a local folder in its layout, or from ``save_to_disk``."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import NAME_COLUMNS, find_examples, item_columns, table_rows
from trainyard.data.folders import read_folder
from trainyard.data.records import Found, LazyItems, Split, split_named
from trainyard.preprocess.folders import IMAGE_SUFFIXES
from trainyard.preprocess.items import image_item
from trainyard.preprocess.rows import MissingColumn, Table, positions_of
from trainyard.preprocess.tables import TABLE_SUFFIXES

if TYPE_CHECKING:
    import datasets

PREFIX = "hub"
DATA_SUFFIXES = frozenset((*TABLE_SUFFIXES, ".arrow", ".zip", ".tar"))
"""Files that hold many examples, or say what others are."""


def read_hub(name: str, data: ImagesConfig | TextsConfig) -> Found:
    """Reads a Hugging Face dataset. Images stay on the disk until they are needed.

    Args:
        name: Its id, or a local folder.

    Raises:
        DataError: it can't be had (not there, no network, no such ``data.subset``), or a column isn't in it.
    """
    if _is_of_files(Path(name).expanduser(), data):
        return read_folder(Path(name).expanduser().absolute(), data)
    import datasets

    loaded = _load(name, data)
    parts: dict[Split, list[datasets.Dataset]] = {}
    for split_name, dataset in loaded.items():
        if split := split_named(split_name):
            parts.setdefault(split, []).append(dataset)
    joined = {split: datasets.concatenate_datasets(same) for split, same in parts.items()}
    where = f"{PREFIX}:{name}"
    tables = ((split, _table(dataset, split, where, data)) for split, dataset in joined.items())
    found = find_examples(row for split, table in tables for row in table_rows(table, data, Path(), split))
    if isinstance(data, ImagesConfig):
        for split, rows in found.splits.items():
            images = _images(joined[split], data.image)
            found.splits[split] = replace(rows, items=images.select([int(str(item)) for item in rows.items]))
    if unused := [split_name for split_name in loaded if not split_named(split_name)]:
        found.warnings.append(
            f"splits other than train, val and test aren't used ({', '.join(unused)}): choose another data.subset, "
            "or save the dataset with these names, if they are wanted"
        )
    return found


def _is_of_files(folder: Path, data: ImagesConfig | TextsConfig) -> bool:
    """Whether a local folder is for our own reader: a file for each example, and nothing that says more of them."""
    card = folder / "README.md"
    if not folder.is_dir() or data.subset is not None or (card.exists() and b"configs:" in card.read_bytes()):
        return False
    # Beside images, a table called metadata is for `datasets`; of any other our reader says whether it is taken.
    suffixes = {".parquet", ".arrow", ".zip", ".tar"} if isinstance(data, ImagesConfig) else DATA_SUFFIXES
    paths = (*folder.glob("*"), *folder.glob("*/*"))
    return not any(path.suffix.lower() in suffixes or path.stem == "metadata" for path in paths)


def _load(name: str, data: ImagesConfig | TextsConfig) -> dict[str, datasets.Dataset]:
    import datasets

    folder = Path(name).expanduser()
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            loaded = datasets.load_from_disk(str(folder), keep_in_memory=False)
        elif folder.is_dir():
            cache = Path(data.cache).expanduser() / "hub"
            # Its reader of CSV would take the labels NA, None and null for missing ones. Others do not know the word.
            is_csv = {path.suffix.lower() for path in folder.rglob("*")} & {*DATA_SUFFIXES, *IMAGE_SUFFIXES} == {".csv"}
            words: dict[str, bool] = {"keep_default_na": False} if is_csv else {}
            loaded = datasets.load_dataset(
                str(folder.absolute()), data.subset, cache_dir=str(cache), keep_in_memory=False, **words
            )
        else:
            loaded = datasets.load_dataset(name, data.subset, keep_in_memory=False)
    except ConnectionError as error:
        raise DataError(
            f"data.path={PREFIX}:{name} is no local folder, and the Hugging Face hub can't be reached ({error}): "
            f"connect to the network, or give the dataset's folder as {PREFIX}:FOLDER"
        ) from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"data.path={PREFIX}:{name} with data.subset={data.subset or 'null'} can't be loaded: {reason}"
        ) from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _table(dataset: datasets.Dataset, split: Split, where: str, data: ImagesConfig | TextsConfig) -> Table:
    """The columns that are needed; an image's cell is its row, by which it is read when it is asked for."""
    names = dataset.column_names
    try:
        positions = positions_of(where, names, [*item_columns(data), data.label], ())
    except MissingColumn as error:
        raise DataError(f"{error}: {NAME_COLUMNS}") from None
    columns = [
        map(str, range(len(dataset)))
        if isinstance(data, ImagesConfig) and column == data.image
        else _values(dataset, names[position])
        for column, position in positions.items()
    ]
    return Table(list(positions), [(f"{split}:{row}", cells) for row, cells in enumerate(zip(*columns, strict=True))])


def _images(dataset: datasets.Dataset, column: str | int) -> LazyItems:
    """The images of a dataset, read from its memory-mapped files one by one, and known by these files."""
    import datasets

    name = column if isinstance(column, str) else dataset.column_names[column]
    images = dataset.select_columns([name])
    if isinstance(dataset.features[name], datasets.Image):
        images = images.cast_column(name, datasets.Image(decode=False))
    digest = hashlib.sha256()
    for entry in dataset.cache_files:
        status = Path(entry["filename"]).stat()
        digest.update(f"{entry['filename']}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return LazyItems(lambda row: image_item(images[row][name], Path()), digest.hexdigest(), np.arange(len(dataset)))


def _values(dataset: datasets.Dataset, column: str) -> list[object]:
    """A column, with the names of classes where the dataset knows them; its -1 is a hidden label."""
    import datasets

    values: list[object] = dataset.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    feature = dataset.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    return [feature.names[value] if isinstance(value, int) and value >= 0 else None for value in values]
