"""What the data is once it has been found: raw items with their labels, per split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError
from trainyard.preprocess.base import Item

if TYPE_CHECKING:
    from trainyard.data.image_cache import DecodedImages
    from trainyard.data.report import DataReport

Labels = TypeVar("Labels")
Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_SPLIT_NAMES: dict[str, Split] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")


def split_named(name: str) -> Split | None:
    """The split that a folder, a file or a value calls by this name, in any case; ``None`` if it isn't one."""
    return _SPLIT_NAMES.get(name.strip().lower())


@dataclass(frozen=True, eq=False)
class LazyItems(Sequence[Item]):
    """Items that are read when they are asked for: more than memory holds.

    Attributes:
        read: Reads the item of a row of the source.
        identity: What changes when the source does, found without reading it.
        rows: ``[items] int64``, the row of each.
    """

    read: Callable[[int], Item]
    identity: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return replace(self, rows=self.rows[index]) if isinstance(index, slice) else self.read(int(self.rows[index]))

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> LazyItems:
        """These rows only, still unread."""
        return replace(self, rows=self.rows[np.asarray(rows, dtype=np.int64)])


class Row(NamedTuple):
    """An example as a source yields it; one without an item or a label is counted as bad and skipped.

    Attributes:
        item: A text, a pair of texts, or an image by its path or its bytes; or why there is none.
        label: Name of its class.
        split: ``train``, ``val`` or ``test``; with ``None`` the library holds examples out as the config says.
        where: Where it is from, for a person to find it.
    """

    item: Item | ItemError
    label: object
    split: str | None = None
    where: str = ""


@dataclass(frozen=True)
class Examples(Generic[Labels]):
    """Raw items of one split: ``Rows`` as a source gives them, and ``Records`` when the classes are known.

    Attributes:
        items: Image files (path or bytes), texts, or pairs of texts.
        labels: Name of the class of each; of ``Records`` ``[n] int64`` indices into the classes.
        sources: Where each is from: a relative path, or ``file.csv:12`` (line number, 1 is the first line).
        decoded: The items' pixels, where they are cached; otherwise images are decoded whenever they are read.
        digests: SHA-256 of each item's content, once all were looked into.
    """

    items: Sequence[Item]
    labels: Labels
    sources: Sequence[str]
    decoded: DecodedImages | None = None
    digests: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, item: Item, label: str, source: str) -> None:
        """One more, while a source is read and all columns are lists."""
        for column, value in ((self.items, item), (self.labels, label), (self.sources, source)):
            assert isinstance(column, list), "what is read later is known whole"
            column.append(value)

    def select(self, examples: Sequence[int] | NDArray[np.int64]) -> Examples[Labels]:
        """These examples, in this order."""

        def chosen(column: Any) -> Any:
            if isinstance(column, LazyItems):
                return column.select(examples)
            return column[examples] if isinstance(column, np.ndarray) else [column[i] for i in examples]

        decoded = self.decoded and self.decoded.select(examples)
        digests = chosen(self.digests) if len(self.digests) else ()
        return Examples(chosen(self.items), chosen(self.labels), chosen(self.sources), decoded, digests)


Rows: TypeAlias = Examples[list[str]]
Records: TypeAlias = Examples[NDArray[np.int64]]


@dataclass(frozen=True)
class BadExample:
    """An example that can't be used.

    Attributes:
        where: A relative path, or ``file.csv:12``.
        reason: Half a sentence.
    """

    where: str
    reason: str


@dataclass
class Found:
    """What a source holds, before anything is divided or decoded. Undivided data is all ``train``.

    Attributes:
        warnings: What may be wrong with it.
        notes: How it was read, where that had to be found out.
    """

    splits: dict[Split, Rows]
    bad: list[BadExample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Examples seen, bad ones included."""
        return sum(len(rows) for rows in self.splits.values()) + len(self.bad)


@dataclass(frozen=True)
class Dataset:
    """A dataset that has passed all checks.

    Attributes:
        splits: All three, none of them empty.
        classes: Sorted names; integers sort by value.
        fingerprint: SHA-256 over contents and labels of each split, whatever the files' names, places and times.
        location: What ``data.path`` said, absolute for local paths.
        report: What was counted, skipped and warned of.
    """

    splits: dict[Split, Records]
    classes: tuple[str, ...]
    fingerprint: str
    location: str
    report: DataReport
