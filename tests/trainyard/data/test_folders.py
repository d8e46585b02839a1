"""Layouts of folders: classes, splits, tables."""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.load import load_dataset
from trainyard.data.records import Found
from trainyard.data.sources import read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]


@pytest.mark.parametrize("val_name", ["val", "valid", "Validation", "dev"])
def test_a_folder_per_split_and_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None], val_name: str
) -> None:
    for split in ("train", val_name, "test"):
        write_images(tmp_path / "d" / split, {"cat": 1, "dog": 2})

    found = read_source(images(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert found.splits["train"].labels == ["cat", "dog", "dog"]
    assert found.splits["val"].sources[0] == f"{val_name}/cat/000.png"


def test_a_folder_per_class_is_undivided(tmp_path: Path, images: Images, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "d", {"cat": 1, "train": 2})

    found = read_source(images(tmp_path / "d"))

    assert found.splits["train"].labels == ["cat", "train", "train"], "a class may be called train"
    assert set(found.splits) == {"train"}


@pytest.mark.parametrize("strays", [("train",), ("train", "test")])
def test_a_stray_image_does_not_turn_a_split_into_a_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None], strays: tuple[str, ...]
) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "d" / split, {"cat": 1, "dog": 2})
    for split in strays:
        shutil.copy(tmp_path / "d" / split / "cat" / "000.png", tmp_path / "d" / split / "montage.png")

    found = read_source(images(tmp_path / "d"))

    assert {split: rows.labels for split, rows in found.splits.items()} == {
        "train": ["cat", "dog", "dog"],
        "test": ["cat", "dog", "dog"],
    }
    assert len(found.warnings) == len(strays)
    for split, warning in zip(sorted(strays), found.warnings, strict=True):
        assert f"1 images lie beside the folders of the classes and aren't used ({split}/mon" in warning


def test_a_class_called_as_a_split_may_hold_folders_without_images(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d", {"cat": 1, "train": 2})
    (tmp_path / "d" / "train" / "notes").mkdir()

    assert read_source(images(tmp_path / "d")).splits["train"].labels == ["cat", "train", "train"]


def test_a_table_beside_its_images_makes_a_split(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "d", {split: 2})
        (tmp_path / "d" / split / "labels.csv").write_text("image,label\n000.png,cat\n001.png,dog\n")

    found = read_source(images(tmp_path / "d"))

    assert {split: rows.labels for split, rows in found.splits.items()} == {
        "train": ["cat", "dog"],
        "test": ["cat", "dog"],
    }


@pytest.mark.parametrize("target", [".", "..", "../../pets"])
def test_a_link_back_does_not_multiply_the_images(
    tmp_path: Path, images: Images, write_images: Callable[..., None], target: str
) -> None:
    write_images(tmp_path / "pets", {"cat": 2, "dog": 1})
    (tmp_path / "pets" / "cat" / "back").symlink_to(target)

    assert read_source(images(tmp_path / "pets")).splits["train"].labels == ["cat", "cat", "dog"]


def test_links_to_images_elsewhere_are_followed_once(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "pets", {"cat": 1, "dog": 1})
    write_images(tmp_path, {"more": 2})
    for name in ("more", "again"):
        (tmp_path / "pets" / "cat" / name).symlink_to(tmp_path / "more")

    assert read_source(images(tmp_path / "pets")).splits["train"].labels == ["cat", "cat", "cat", "dog"]


def test_files_may_be_nested_hidden_or_of_other_kinds(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d" / "cat", {"2024/may": 1, ".trash": 1})
    write_images(tmp_path / "d", {"dog": 1})
    (tmp_path / "d" / "dog" / "000.png").rename(tmp_path / "d" / "dog" / "A.JPeG")
    (tmp_path / "d" / "dog" / "._A.jpg").write_bytes(b"")
    (tmp_path / "d" / "dog" / "notes.txt").write_text("hello")

    found = read_source(images(tmp_path / "d"))

    assert found.splits["train"].sources == ["cat/2024/may/000.png", "dog/A.JPeG"]
    assert len(found.warnings) == 1
    assert "1 files aren't images" in found.warnings[0]
    assert "(dog/notes.txt)" in found.warnings[0], "no absolute path: the model card shows it"


def test_a_split_that_is_there_twice_is_an_error(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for split in ("train", "val", "dev"):
        write_images(tmp_path / "d" / split, {"cat": 1})

    with pytest.raises(DataError, match="val split twice: dev, val"):
        read_source(images(tmp_path / "d"))


@pytest.mark.parametrize(
    "names", [("train.csv", "dev.csv", "test.csv"), ("train/a.csv", "validation/a.csv", "test/a.csv")]
)
def test_a_table_or_a_folder_of_tables_per_split(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path], names: tuple[str, ...]
) -> None:
    for count, name in enumerate(names, start=2):
        write_csv(tmp_path / "d" / name, count)

    found = read_source(texts(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2, "val": 3, "test": 4}
    assert found.splits["val"].sources[0] == f"{names[1]}:2"


def test_parts_of_one_split_are_joined(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    for part in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_csv(tmp_path / "d" / f"{part}.csv", 2)

    found = read_source(texts(tmp_path / "d"))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "test": 2}


def test_what_belongs_to_no_split_is_left_out_with_a_warning(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    for name in ("train.csv", "train_old.csv", "sample.csv"):
        write_csv(tmp_path / "d" / name, 2)

    found = read_source(texts(tmp_path / "d"))

    assert len(found.splits["train"]) == 2
    assert "(sample.csv, train_old.csv)" in found.warnings[0]
    assert str(tmp_path) not in found.warnings[0], "the model card shows it"


def test_tables_without_split_names_are_one_undivided_table(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    for name in ("may.csv", "june.csv"):
        write_csv(tmp_path / "d" / name, 3)

    assert len(read_source(texts(tmp_path / "d")).splits["train"]) == 6


def test_a_folder_without_data_says_what_it_may_hold(tmp_path: Path, images: Images, texts: Texts) -> None:
    (tmp_path / "d").mkdir()

    with pytest.raises(DataError, match="<split>/<class>/file"):
        read_source(images(tmp_path / "d"))
    with pytest.raises(DataError, match=r"tables \(\.csv"):
        read_source(texts(tmp_path / "d"))


PETS = {"cat": 2, "dog": 2}


def counts(found: Found) -> dict[str, dict[str, int]]:
    return {split: dict(sorted(Counter(rows.labels).items())) for split, rows in found.splits.items()}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training Set", "Test Set", "test"),
        ("train_images", "test_images", "test"),
        ("train2017", "val2017", "val"),
        ("TrainImages", "ValidImages", "val"),
        ("trainset", "testset", "test"),
        ("pets-train", "pets-dev", "val"),
        ("train", "test_images", "test"),
    ],
)
def test_a_split_is_told_by_a_word_of_its_name(
    tmp_path: Path, images: Images, write_images: Callable[..., None], train: str, other: str, split: str
) -> None:
    for name in (train, other):
        write_images(tmp_path / "d" / name, PETS)

    assert counts(read_source(images(tmp_path / "d"))) == {"train": PETS, split: PETS}


@pytest.mark.parametrize("names", [("test_tube", "train_station"), ("trainers", "testers"), ("train", "tram")])
def test_a_class_may_have_such_a_word_in_its_name(
    tmp_path: Path, images: Images, write_images: Callable[..., None], names: tuple[str, ...]
) -> None:
    write_images(tmp_path / "d", dict.fromkeys(names, 2))

    assert counts(read_source(images(tmp_path / "d"))) == {"train": dict.fromkeys(sorted(names), 2)}


def test_a_split_with_one_folder_around_its_classes(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for folder in ("train/train", "test/images"):
        write_images(tmp_path / "d" / folder, PETS)

    assert counts(read_source(images(tmp_path / "d"))) == {"train": PETS, "test": PETS}


def test_a_split_without_folders_of_classes_is_said_to_have_no_labels(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d" / "train", PETS)
    write_images(tmp_path / "d", {"test": 2})

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": PETS}
    assert found.warnings == [
        "1 splits have no folders of classes, so no labels, and aren't used (test): give them some"
    ]


@pytest.mark.parametrize("inner", ["my_data", "my_data/v2"])
@pytest.mark.parametrize("splits", [("train", "test"), (".",)])
def test_a_folder_around_the_data_is_asked_about(
    tmp_path: Path, images: Images, write_images: Callable[..., None], inner: str, splits: tuple[str, ...]
) -> None:
    for split in splits:
        write_images(tmp_path / "d" / inner / split, PETS)

    with pytest.raises(DataError, match=rf"did you mean data\.path={tmp_path}/d/{inner}\?"):
        read_source(images(tmp_path / "d"))


def test_a_folder_around_tables_is_asked_about(tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]) -> None:
    write_csv(tmp_path / "d" / "my_data" / "train.csv", 2)

    with pytest.raises(DataError, match=rf"did you mean data\.path={tmp_path}/d/my_data\?"):
        read_source(texts(tmp_path / "d"))


def test_the_same_folders_in_each_folder_may_be_the_classes(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    for name in ("2023", "2024"):
        write_images(tmp_path / "d" / name, PETS)

    with pytest.raises(DataError, match=r"the same folders \(cat, dog\) in each of 2023, 2024: .*data\.path=\S*/2023;"):
        read_source(images(tmp_path / "d"))


def test_the_classes_once_more_beside_themselves_are_no_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "pets", PETS)
    write_images(tmp_path / "pets" / "pets", PETS)

    with pytest.raises(DataError, match=r"pets/pets has folders of the same names as beside it: move it away"):
        read_source(images(tmp_path / "pets"))


def test_loose_files_do_not_make_a_class_of_what_is_around_classes(tmp_path: Path, texts: Texts) -> None:
    for part in ("enron1", "enron2"):
        for name in ("Summary.txt", "ham/1.txt", "spam/1.txt"):
            (tmp_path / "d" / part / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "d" / part / name).write_text("words")

    with pytest.raises(DataError, match=r"the same folders \(ham, spam\) in each of enron1, enron2"):
        read_source(texts(tmp_path / "d"))


def test_classes_that_hold_nothing_but_folders_are_warned_of(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d" / "animals", {"cat": 1, "dog": 1})
    write_images(tmp_path / "d" / "plants", {"fern": 1, "rose": 1})
    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": {"animals": 2, "plants": 2}}
    assert "all classes (animals, plants) hold nothing but folders" in found.warnings[0]

    write_images(tmp_path / "d", {"plants": 1})
    assert not read_source(images(tmp_path / "d")).warnings


def test_a_pipe_is_no_table(tmp_path: Path, texts: Texts) -> None:
    os.mkfifo(tmp_path / "t.csv")

    with pytest.raises(UsageError, match=r"t\.csv isn't a regular file"):
        read_source(texts(tmp_path / "t.csv"))


def test_texts_in_folders_are_no_pairs(tmp_path: Path, texts: Texts) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.txt").write_text("words")

    with pytest.raises(DataError, match=r"data\.pair=true takes tables: leave it out"):
        read_source(texts(tmp_path / "d", text=["a", "b"], pair=True))


def test_tables_beside_splits_are_warned_of(tmp_path: Path, images: Images, write_images: Callable[..., None]) -> None:
    for name in ("train", "val", "val_blurred"):
        write_images(tmp_path / "d" / name, PETS)
    (tmp_path / "d" / "train.csv").write_text("image,label\ntrain/cat/000.png,wet\n")

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": PETS, "val": PETS}
    assert [warning.partition(":")[0] for warning in found.warnings] == [
        "1 entries belong to no split and aren't used (val_blurred)",
        "1 tables lie beside the folders of the splits and aren't used (train.csv)",
    ]


def test_folders_in_each_class_may_differ(tmp_path: Path, images: Images, write_images: Callable[..., None]) -> None:
    for folder, inner in (("cat", ("may", "june")), ("dog", ("may",))):
        write_images(tmp_path / "d" / folder, dict.fromkeys(inner, 1))

    assert counts(read_source(images(tmp_path / "d"))) == {"train": {"cat": 2, "dog": 1}}


@pytest.mark.parametrize("place", [".", "train"])
def test_a_table_beside_the_classes_is_refused_if_it_can_be_read_too(
    tmp_path: Path, images: Images, write_images: Callable[..., None], place: str
) -> None:
    write_images(tmp_path / "d" / place, PETS)
    table = tmp_path / "d" / place / "notes.csv"
    table.write_text("image,label\ncat/000.png,wet\ndog/000.png,dry\n")

    for path in (tmp_path / "d", f"hub:{tmp_path / 'd'}"):
        with pytest.raises(DataError, match=rf"a table or .*cat, .*dog\): say data\.path={table}, or move the table"):
            read_source(images(path))
    assert counts(read_source(images(table))) == {"train": {"dry": 1, "wet": 1}}


@pytest.mark.parametrize("content", ["image,label\nnone.png,wet\n", "file,weather\ncat/000.png,wet\n", ""])
@pytest.mark.parametrize("place", ["", "train/"])
def test_a_table_beside_the_classes_is_warned_of_otherwise(
    tmp_path: Path, images: Images, write_images: Callable[..., None], place: str, content: str
) -> None:
    write_images(tmp_path / "d" / place, PETS)
    (tmp_path / "d" / place / "notes.csv").write_text(content)

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": PETS}
    assert len(found.warnings) == 1
    assert f"1 tables lie beside the folders of the classes and aren't used ({place}notes.csv)" in found.warnings[0]


def test_images_of_a_table_may_lie_in_folders(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d", {"images": 2})
    (tmp_path / "d" / "labels.csv").write_text("image,label\nimages/000.png,wet\nimages/001.png,dry\n")

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": {"dry": 1, "wet": 1}}
    assert not found.warnings
    with pytest.raises(DataError, match="has no column 'file'"):
        read_source(images(tmp_path / "d", image="file"))


def test_a_class_without_a_file_that_can_be_read_is_named(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d" / "train", PETS | {"larch": 0, "fir": 1})
    (tmp_path / "d" / "train" / "fir" / "000.png").rename(tmp_path / "d" / "train" / "fir" / "000.heic")
    write_images(tmp_path / "d" / "test", PETS)

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": PETS, "test": PETS}
    assert any("so no class, and aren't used (train/fir, train/larch)" in warning for warning in found.warnings)


@pytest.mark.parametrize("lost", [{"dog": 0}, {"cat": 0, "dog": 0}])
def test_a_class_that_a_split_lost_is_refused(
    tmp_path: Path, images: Images, write_images: Callable[..., None], lost: dict[str, int]
) -> None:
    write_images(tmp_path / "d" / "train", PETS)
    write_images(tmp_path / "d" / "test", PETS | lost)

    with pytest.raises(DataError, match=r"d/test/\w+ holds no images that can be read, and train has its class"):
        read_source(images(tmp_path / "d"))


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "System Volume Information", "__MACOSX", ".cache"]
)
def test_folders_of_systems_hold_no_data(
    tmp_path: Path, images: Images, write_images: Callable[..., None], name: str
) -> None:
    write_images(tmp_path / "d", PETS | {name: 1, f"cat/{name}": 1})
    (tmp_path / "d" / "cat" / "Thumbs.db").write_text("")

    found = read_source(images(tmp_path / "d"))

    assert counts(found) == {"train": PETS}
    assert not found.warnings


@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_back_is_no_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None], target: str
) -> None:
    write_images(tmp_path / "d", PETS)
    (tmp_path / "d" / "loop").symlink_to(target)

    assert counts(read_source(images(tmp_path / "d"))) == {"train": PETS}


def test_folders_whose_names_a_person_reads_as_one_are_one_class(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d", {"caf\u00e9": 1, "cafe\u0301": 1, "dog": 1, "dog ": 1, "dog\u200b": 1})

    assert counts(read_source(images(tmp_path / "d"))) == {"train": {"caf\u00e9": 2, "dog": 3}}


def test_a_name_that_is_not_unicode_is_refused(
    tmp_path: Path, images: Images, write_images: Callable[..., None]
) -> None:
    write_images(tmp_path / "d", PETS)
    os.rename(tmp_path / "d" / "cat", os.fsencode(tmp_path / "d") + b"/caf\xe9")

    with pytest.raises(DataError, match=r"folder 'caf\\udce9' in .* has no name in UTF-8: rename it"):
        read_source(images(tmp_path / "d"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Grüße".encode(), "Grüße"),
        ("\ufeffGrüße".encode(), "Grüße"),
        ("Grüße".encode("utf-16"), "Grüße"),
        ("“Grüße”".encode("cp1252"), "“Grüße”"),
        (b"\x81\xfc", "\x81ü"),
    ],
)
def test_a_text_is_read_in_the_encoding_it_has(tmp_path: Path, texts: Texts, content: bytes, text: str) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.txt").write_bytes(content)

    assert read_source(texts(tmp_path / "d")).splits["train"].items == [text, text]


def test_a_file_that_is_no_text_is_bad(tmp_path: Path, texts: Texts) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "1.txt").write_text("words")
    (tmp_path / "d" / "a" / "2.txt").write_text(" \n")
    (tmp_path / "d" / "a" / "3").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "d" / "a" / "4.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "d" / "a" / "5.txt")

    found = read_source(texts(tmp_path / "d"))

    assert counts(found) == {"train": {"a": 1, "b": 1}}
    assert {bad.where: bad.reason for bad in found.bad} == {
        "a/2.txt": "empty",
        "a/3": "isn't a text",
        "a/4.txt": "can't be read (No such file or directory)",
        "a/5.txt": "5.txt isn't a regular file",
    }


@pytest.mark.parametrize("names", [("part_1", "part_2"), ("images_001", "images_002", "images_003")])
def test_parts_of_the_images_of_a_table_are_no_classes(
    tmp_path: Path, images: Images, write_images: Callable[..., None], names: tuple[str, ...]
) -> None:
    write_images(tmp_path / "d", dict.fromkeys(names, 2))
    (tmp_path / "d" / "labels.csv").write_text("image_id,dx\n000,nevus\n001,mole\n")

    with pytest.raises(DataError, match=r"labels\.csv has no column 'image'.*move the tables away if \w+, .* are c"):
        read_source(images(tmp_path / "d"))


def test_a_wrong_column_is_said_also_where_folders_hold_texts(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    write_csv(tmp_path / "d" / "train.csv", 3)
    for name in ("docs", "src"):
        (tmp_path / "d" / name).mkdir()
        (tmp_path / "d" / name / "LICENSE").write_text("words")

    with pytest.raises(DataError, match=r"train\.csv has no column 'body'.*move the tables away if docs, src are"):
        read_source(texts(tmp_path / "d", text="body"))


def test_tables_of_texts_come_before_folders_of_texts(
    tmp_path: Path, texts: Texts, write_csv: Callable[..., Path]
) -> None:
    write_csv(tmp_path / "d" / "all.csv", 3)
    for name in ("docs", "notes"):
        (tmp_path / "d" / name).mkdir()
        (tmp_path / "d" / name / "1.txt").write_text("words")

    found = read_source(texts(tmp_path / "d"))

    assert counts(found) == {"train": {"a": 2, "b": 1}}
    assert not found.warnings


def special(path: Path) -> None:
    """Puts files beside each other that are waited for, or read, without end."""
    os.mkfifo(path / "fifo.png")
    (path / "device.png").symlink_to("/dev/zero")
    (path / "loop.png").symlink_to("loop.png")
    (path / "folder.png").symlink_to(path.parent / "dog")
    with socket.socket(socket.AF_UNIX) as unix:
        place = os.open(path, os.O_RDONLY)  # the path of a socket may not be as long as a test's folder
        unix.bind(f"/proc/self/fd/{place}/socket.png")
        os.close(place)


@pytest.mark.parametrize("cache_gb", [None, 0])
def test_a_file_that_is_not_regular_is_bad_at_once(
    tmp_path: Path, images: Images, write_images: Callable[..., None], cache_gb: float | None
) -> None:
    write_images(tmp_path / "d", {"cat": 30, "dog": 30})
    special(tmp_path / "d" / "cat")
    (tmp_path / "d" / "cat" / "folder.png").unlink()
    named = sorted((tmp_path / "d").glob("*/*.png"))
    (tmp_path / "list.csv").write_text("image,label\n" + "".join(f"{one},{one.parent.name}\n" for one in named))

    for path in (tmp_path / "d", tmp_path / "list.csv"):
        report = load_dataset(images(path, max_bad=0.5, cache_gb=cache_gb), seed=0).report
        reasons = sorted(bad.reason for bad in report.bad)
        assert [reason.split(":")[0] for reason in reasons] == [
            "Too many levels of symbolic links",
            "device.png isn't a regular file",
            "fifo.png isn't a regular file",
            "socket.png isn't a regular file",
        ]
