"""Finding examples in folders: a folder for each class, or tables, or one of both below a folder for each split.

A folder is read as what a person sees in it. Where it can be read in two ways, or what would be read isn't plausible,
the error names the ways out.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.base.errors import DataError, ItemError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import merge, read_examples
from trainyard.data.labels import label_name
from trainyard.data.records import BadExample, Found, Rows, Split, split_named
from trainyard.preprocess.folders import files_below, is_image, is_text, is_visible, read_text
from trainyard.preprocess.tables import TABLE_SUFFIXES, table_format

NEUTRAL_WORDS = frozenset(("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "files", "folder"))
"""What the name of a split's folder says besides: ``test_set``, ``train_images``."""
NO_CLASSES = frozenset(("image", "images", "img", "imgs", "jpegimages", "annotations"))
"""Folders that files lie in by their kind."""
UNLABELLED = frozenset(("unsup", "unsupervised", "unlabeled", "unlabelled"))
"""Folders beside those of the classes that say of themselves that they are none."""
NAME_OR_MOVE = "name them train, val or test, or move them away"
GIVE_OR_MOVE = "give one as data.path, or move them away"


def read_folder(folder: Path, data: ImagesConfig | TextsConfig) -> Found:
    """Reads a folder, divided into splits or not.

    Raises:
        DataError: nothing in it looks like data, or it can be read in two ways, or a split is there twice.
    """
    return _Reader(folder, data).read()


@dataclass(frozen=True)
class _Place:
    """What lies right in a folder, sorted: folders, tables, and files that are examples by their suffix."""

    path: Path
    folders: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class _Reader:
    """Reads what lies below ``root``; ``lost`` are the folders in a split but train that gave no class."""

    root: Path
    data: ImagesConfig | TextsConfig
    lost: list[Path] = field(default_factory=list)

    def read(self) -> Found:
        place = self._look(self.root)
        splits = self._splits(place)
        if not splits:
            return self._read_part(place, None)
        found = merge([self._read_part(self._look(folder), split) for split, folder in splits.items()])
        learnt = set(found.splits["train"].labels) if "train" in found.splits else set()
        if gone := [folder for folder in self.lost if label_name(folder.name) in learnt]:
            raise DataError(
                f"{gone[0]} holds no {self.data.kind} that can be read, and train has its class: convert its files, or "
                "take the class out of all splits"
            )
        others = [folder for folder in place.folders if folder not in splits.values()]
        flat = [folder for folder in others if _split_in(folder.name) and not self._is_split(folder)]
        others = [folder for folder in others if folder not in flat]
        self._unused(found, flat, "splits have no folders of classes, so no labels, and", "give them some")
        self._unused(found, others, "entries belong to no split and", NAME_OR_MOVE)
        self._unused(found, place.tables, "tables lie beside the folders of the splits and", GIVE_OR_MOVE)
        return found

    def _look(self, folder: Path) -> _Place:
        """Without what is hidden or the system's, and without links to the folder itself or to one above it."""
        place = _Place(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if not is_visible(entry.name):
                continue
            if path.is_dir() if entry.is_symlink() else entry.is_dir():
                if not (entry.is_symlink() and folder.resolve().is_relative_to(path.resolve())):
                    place.folders.append(path)
            elif table_format(path) not in ("", ".json") and path.is_file():  # a .json beside data is seldom a table
                place.tables.append(path)
            elif self._is_example(path):
                place.files.append(path)
        return place

    def _is_example(self, path: Path) -> bool:
        return is_image(path) if isinstance(self.data, ImagesConfig) else is_text(path)

    def _holds_examples(self, folder: Path) -> bool:
        return any(map(self._is_example, files_below(folder)))

    def _splits(self, place: _Place) -> dict[Split, Path]:
        """The folder of each split: by its name alone, or by a word where another's name differs by this word only.

        A class may be called ``train`` or ``test_tube``, too: it holds its files, and a split holds folders or tables.
        """
        exact = [one for one in place.folders if split_named(one.name) and self._is_split(one)]
        found: dict[Split, list[Path]] = {}
        for rest, group in _alike(place.folders, several=not exact).items():
            for split, folders in group.items() if not (exact and rest) else ():
                parts = [one for one in folders if one in exact] or [one for one in folders if self._is_split(one)]
                found.setdefault(split, []).extend(parts)
        return {split: _only(split, parts) for split, parts in found.items() if parts}

    def _is_split(self, folder: Path) -> bool:
        place = self._look(folder)
        inner = [one for one in place.folders if one.name.lower() not in NO_CLASSES or self._look(one).folders]
        return bool(place.tables or (inner and (not place.files or any(map(self._holds_examples, inner)))))

    def _read_part(self, place: _Place, split: Split | None) -> Found:
        """Reads what isn't divided further: tables, or a folder for each class."""
        table = self._read_tables(place, split) if place.tables else None
        if isinstance(table, Found) and isinstance(self.data, TextsConfig):
            return table
        classes = list(filter(self._holds_examples, place.folders))
        numbered = len({re.sub(r"\d", "", folder.name) for folder in classes}) == 1
        inner = self._wrapped(classes or place.folders)
        if inner and split and not table:
            return self._read_part(self._look(inner), split)
        doubt = self._doubt(place, classes, inner)
        if table and classes and (numbered or isinstance(self.data, TextsConfig)):
            doubt = doubt or f"move the tables away if {self._listed(classes)} are classes"
        items = [row for rows in table.splits.values() for row in rows.items[:100]] if isinstance(table, Found) else []
        fits = any(not isinstance(item, Path) or os.path.exists(item) for item in items)
        if table and (doubt or len(classes) < 2) and (fits or not inner):
            if isinstance(table, Found):
                return table
            raise DataError(f"{table}; as for the folders, {doubt}") if doubt and classes else table
        if doubt or fits:
            two = f"{place.path} can be read as a table or as a folder for each class ({self._listed(classes)})"
            raise DataError(doubt or f"{two}: say data.path={place.tables[0]}, or move the table away")
        return self._read_classes(place, split)

    def _wrapped(self, folders: Sequence[Path]) -> Path | None:
        """Where the data lies, if all of it is in one folder that can't be a class."""
        if len(folders) != 1:
            return None
        below = self._look(folders[0])
        is_data = below.tables or sum(map(self._holds_examples, below.folders)) > 1
        if self._splits(below) or (is_data and not below.files):
            return below.path
        return None if below.files else self._wrapped(below.folders)

    def _doubt(self, place: _Place, classes: Sequence[Path], inner: Path | None) -> str:
        """Why the folders can't be those of classes; empty if they can."""
        if inner:
            return f"{place.path} has its data in one folder: did you mean data.path={inner}?"
        if not place.folders:
            layouts = "<split>/<class>/file, <class>/file" + ("" if isinstance(self.data, ImagesConfig) else ".txt")
            return f"{place.path} holds no {self.data.kind} as {layouts} or tables ({', '.join(TABLE_SUFFIXES)})"
        splits = [folder for group in _alike(classes).values() for folders in group.values() for folder in folders]
        if flat := splits or [folder for folder in classes if folder.name.lower() in NO_CLASSES]:
            return (
                f"{place.path} has {self.data.kind} without classes in {self._listed(flat)}: put them into a folder "
                f"for each class ({flat[0].name}/cat/), or list them with their labels in a table (train.csv)"
            )
        for folder in classes:  # a zip that was unpacked into itself has the classes once more
            if sum((folder / other.name).is_dir() for other in classes[:3] if other != folder) > 1:
                return f"{folder} has folders of the same names as beside it: move it away, or say data.path={folder}"
        inside = (filter(self._holds_examples, self._look(folder).folders) for folder in classes)
        same = [folder.name for folder in next(inside, ())]
        if len(classes) < 2 or len(same) < 2 or any([folder.name for folder in one] != same for one in inside):
            return ""
        return (
            f"{place.path} has the same folders ({', '.join(same[:5])}) in each of {self._listed(classes)}: if the "
            f"former are classes, call the latter train, val and test, or say data.path={classes[0]}; if not, move "
            "what is in the former one folder up"
        )

    def _read_tables(self, place: _Place, split: Split | None) -> Found | DataError | UsageError:
        """Tables of one split; or one for each split if their names say so, else parts of one undivided table."""
        divided = {} if split else _by_split(place.tables)
        used: Mapping[Path, Split | None] = divided or dict.fromkeys(place.tables, split)
        try:
            found = merge([read_examples(path, self._name(path), self.data, part) for path, part in used.items()])
        except (DataError, UsageError) as error:
            return error
        others = [path for path in place.tables if path not in used]
        self._unused(found, others, "entries belong to no split and", NAME_OR_MOVE)
        return found

    def _read_classes(self, place: _Place, split: Split | None) -> Found:
        """Files below a folder for each class, at any depth; what isn't used is warned of."""
        if isinstance(self.data, TextsConfig) and self.data.pair:
            raise DataError(f"{place.path} has single texts in folders, and data.pair=true takes tables: leave it out")
        unlabelled = [folder for folder in place.folders if folder.name.lower() in UNLABELLED]
        rows, found = Rows([], [], []), Found({})
        others, lost, around = [], [], []
        classes = [folder for folder in place.folders if folder not in unlabelled]
        for folder in classes:
            files = list(files_below(folder, above=(self.root, place.path)))
            examples = [path for path in files if self._is_example(path)]
            if len(examples) < len(files):
                others += [path for path in files if not self._is_example(path)]
            before = len(rows)
            self._add_class(_class_name(folder), examples, rows, found.bad)
            lost += [] if len(rows) > before else [folder]
            ends = {path.relative_to(folder).parts[0] for path in (*examples[:1], *examples[-1:])}
            around += [folder] if len(ends) > 1 and examples[0].parent != folder else []  # what is inside comes first
        self.lost.extend(lost if split != "train" else [])
        found.splits = {split or "train": rows} if len(rows) else {}
        kind, beside = self.data.kind, "lie beside the folders of the classes and"
        self._unused(found, place.files, f"{kind} {beside}", "move them into one, or away")
        self._unused(found, place.tables, f"tables {beside}", GIVE_OR_MOVE)
        self._unused(found, others, f"files aren't {kind} by their suffix and", "convert them, or move them away")
        self._unused(found, lost, f"folders hold no {kind} that can be read, so no class, and", "convert the files")
        if len(around) == len(classes) > 1:
            found.warnings.append(
                f"all classes ({self._listed(around)}) hold nothing but folders, and each is read as one class: if the "
                "classes are inside, give one as data.path"
            )
        self._unused(found, unlabelled, "folders have no label, by their names, and", "rename them if they are classes")
        return found

    def _add_class(self, label: str, paths: Sequence[Path], rows: Rows, bad: list[BadExample]) -> None:
        for path in paths:
            try:
                rows.add(path if isinstance(self.data, ImagesConfig) else read_text(path), label, self._name(path))
            except ItemError as error:
                bad.append(BadExample(self._name(path), str(error)))

    def _unused(self, found: Found, paths: Sequence[Path], what: str, fix: str) -> None:
        if paths:
            found.warnings.append(f"{len(paths):,} {what} aren't used ({self._listed(paths)}): {fix}")

    def _listed(self, paths: Sequence[Path]) -> str:
        return ", ".join(map(self._name, paths[:5])) + (", ..." if len(paths) > 5 else "")

    def _name(self, path: Path) -> str:
        """Relative, since the model card shows warnings to strangers; much faster than ``relative_to``."""
        return str(path)[len(str(self.root)) + 1 :]


def _class_name(folder: Path) -> str:
    with contextlib.suppress(ItemError):
        if name := label_name(folder.name):
            return name
    raise DataError(f"the folder {folder.name!a} in {folder.parent} has no name in UTF-8: rename it")


def _split_in(name: str) -> tuple[Split, str] | None:
    """The split that one word of a name says, and what else it says: ``train`` and ``seg`` of ``seg_train2017``."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [re.sub(r"(?<=\w\w)(set|data|images?)$", "", word) for word in words]
    splits = {split for word in words if (split := split_named(word))}
    rest = " ".join(word for word in words if not split_named(word) and word not in NEUTRAL_WORDS)
    return (splits.pop(), rest) if len(splits) == 1 else None


def _alike(folders: Sequence[Path], several: bool = True) -> dict[str, dict[Split, list[Path]]]:
    """Folders of (``several``) splits whose names differ by the word for the split only, by what else they say."""
    groups: dict[str, dict[Split, list[Path]]] = {}
    for folder in folders:
        if named := _split_in(folder.name):
            groups.setdefault(named[1], {}).setdefault(named[0], []).append(folder)
    return {rest: group for rest, group in groups.items() if len(group) > several}


def _by_split(tables: Sequence[Path]) -> dict[Path, Split]:
    """By names as ``train.csv`` and ``train-00000-of-00002.parquet`` (the hub's layout)."""
    divided: dict[Path, Split] = {}
    wholes: dict[Split, dict[str, Path]] = {}
    for path in tables:
        whole = re.sub(r"^([^-]*)-(\d.*)?(?=\.)", r"\1", path.name.removesuffix(".gz"))  # without its part
        if split := split_named(Path(whole).stem):
            divided[path] = split
            wholes.setdefault(split, {}).setdefault(whole, path)
    for split, paths in wholes.items():
        _only(split, list(paths.values()))
    return divided


def _only(split: Split, paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise DataError(f"{paths[0].parent} has the {split} split twice: {', '.join(path.name for path in paths)}")
    return paths[0]
