"""Hugging Face datasets: from the hub, from a local folder in its layout, or from ``save_to_disk``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import DataError, ItemError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import NAME_COLUMNS, find_examples, item_columns, merge, table_items
from trainyard.data.folders import read_folder
from trainyard.data.records import Found, LazyItems, Split, split_named
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import IMAGE_SUFFIXES
from trainyard.preprocess.items import image_item
from trainyard.preprocess.rows import MissingColumn, Table, find_column
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
    found, unused = [], []
    for split_name, dataset in _load(name, data).items():
        split = split_named(split_name)
        if split is None:
            unused.append(split_name)
        else:
            found.append(_read_split(dataset, split, f"{PREFIX}:{name}", data))
    merged = merge(found)
    if unused:
        merged.warnings.append(
            f"splits other than train, val and test aren't used ({', '.join(unused)}): choose another data.subset, "
            "or save the dataset with these names, if they are wanted"
        )
    return merged


class HubImages(LazyItems):
    """The images of a dataset, read from its memory-mapped files one by one.

    Args:
        dataset: With the image column only.
        rows: The dataset's rows that these are.
    """

    def __init__(self, dataset: datasets.Dataset, rows: NDArray[np.int64]) -> None:
        self._dataset = dataset
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> HubImages: ...
    def __getitem__(self, index: int | slice) -> Item | HubImages:
        if isinstance(index, slice):
            return HubImages(self._dataset, self._rows[index])
        value = self._dataset[int(self._rows[index])]
        return image_item(next(iter(value.values())), Path())

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> HubImages:
        """These rows only, still unread."""
        return HubImages(self._dataset, self._rows[np.asarray(rows, dtype=np.int64)])

    def identities(self) -> list[str]:
        """The dataset's files, by name, size and time, and the row."""
        digest = hashlib.sha256()
        for entry in self._dataset.cache_files:
            status = Path(entry["filename"]).stat()
            digest.update(
                f"{entry['filename']}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        return [f"{digest.hexdigest()}:{row}" for row in self._rows]


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


def _read_split(dataset: datasets.Dataset, split: Split, where: str, data: ImagesConfig | TextsConfig) -> Found:
    names = dataset.column_names
    columns = {column: _column_name(where, names, column) for column in (*item_columns(data), data.label)}
    labels = _labels(dataset, columns[data.label])
    sources = [f"{split}:{row}" for row in range(len(dataset))]
    items: Sequence[Item | ItemError]
    if isinstance(data, ImagesConfig):
        items = _images(dataset, columns[data.image])
    else:
        texts = {column: _values(dataset, columns[column]) for column in item_columns(data)}
        items = table_items(Table(texts, sources), data, Path())
    return find_examples(items, labels, sources, [split] * len(dataset))


def _images(dataset: datasets.Dataset, column: str) -> HubImages:
    import datasets

    images = dataset.select_columns([column])
    if isinstance(dataset.features[column], datasets.Image):
        images = images.cast_column(column, datasets.Image(decode=False))
    return HubImages(images, np.arange(len(dataset)))


def _labels(dataset: datasets.Dataset, column: str) -> list[object]:
    """Class names where the dataset knows them; its -1 is a hidden label."""
    import datasets

    values = _values(dataset, column)
    feature = dataset.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return values
    return [feature.names[value] if isinstance(value, int) and value >= 0 else None for value in values]


def _values(dataset: datasets.Dataset, column: str) -> list[object]:
    values: list[object] = dataset.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    return values


def _column_name(where: str, names: Sequence[str], column: str | int) -> str:
    position = find_column(names, column)
    if position is None:
        raise DataError(f"{MissingColumn(where, column, names)}: {NAME_COLUMNS}")
    return names[position]
