"""What a user hands to predict becomes items with names, or one sentence."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainyard.artifacts.bundle import Bundle, BundleFacts
from trainyard.base.errors import ItemError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.examples import read_examples
from trainyard.data.folders import read_folder
from trainyard.heads.base import Prediction
from trainyard.inference.inputs import Reads, answer, read_inputs
from trainyard.preprocess.base import Item
from trainyard.preprocess.folders import IMAGE_SUFFIXES


def bundle(kind: str, **data: object) -> Bundle:
    """What reading asks of a bundle: its kind and its data's config."""
    facts = SimpleNamespace(kind=kind, data=SimpleNamespace(config=data))
    return Bundle(Path(), "", cast(BundleFacts, facts))


def images(*words: Path | str, **data: object) -> list[tuple[str, Item | ItemError]]:
    return list(read_inputs([str(word) for word in words], Reads.of(bundle("image", **data))))


def named_texts(*words: Path | str, **data: object) -> list[tuple[str, Item | ItemError]]:
    return list(read_inputs([str(word) for word in words], Reads.of(bundle("text", **data))))


def texts(*words: Path | str, **data: object) -> list[Item | ItemError]:
    return [item for _, item in named_texts(*words, **data)]


def shown(inputs: Sequence[tuple[str, Item | ItemError]]) -> list[tuple[str, object]]:
    """Errors as their sentences, which can be compared."""
    return [(name, str(item) if isinstance(item, ItemError) else item) for name, item in inputs]


def stdin(monkeypatch: pytest.MonkeyPatch, content: str | bytes) -> None:
    raw = content.encode() if isinstance(content, str) else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file_is_one_image(tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.of.unknown.kind", "")

    assert images(photo) == [(str(photo), photo)]


def test_a_folder_is_its_images_sorted_and_nothing_else(tmp_path: Path) -> None:
    files = [write(tmp_path / name, "") for name in ("a.PNG", "b/c.jpg", "z.webp")]
    write(tmp_path / "notes.txt", "")

    assert images(tmp_path) == [(str(file), file) for file in files]


def test_a_folder_is_read_as_in_training(tmp_path: Path) -> None:
    """Every suffix, folders that are linked, and nothing that is hidden."""
    photos = [write(tmp_path / "set" / "cats" / f"photo{suffix}", "") for suffix in IMAGE_SUFFIXES]
    write(tmp_path / "set" / "cats" / "._photo.png", "")
    write(tmp_path / "set" / "cats" / ".thumbnails" / "photo.png", "")
    write(tmp_path / "set" / "cats" / "notes.txt", "")
    write(tmp_path / "elsewhere" / "linked.png", "")
    (tmp_path / "set" / "cats" / "link").symlink_to(tmp_path / "elsewhere")

    found = [item for _, item in images(tmp_path / "set")]

    data = ImagesConfig(kind="images", path=str(tmp_path / "set"))
    assert found == sorted([*photos, tmp_path / "set" / "cats" / "link" / "linked.png"])
    assert set(found) == set(read_folder(tmp_path / "set", data).splits["train"].items)


def test_no_folder_is_read_twice(tmp_path: Path) -> None:
    photo = write(tmp_path / "set" / "a" / "photo.png", "")
    beside = write(tmp_path / "b" / "photo.png", "")
    (tmp_path / "set" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "set" / "to_b_too").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_set").symlink_to(tmp_path / "set")

    assert [item for _, item in images(tmp_path / "set")] == [photo, tmp_path / "set" / "to_b" / beside.name]


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="can't be read .*Permission denied.*: change its permissions"):
        images(tmp_path)


def test_a_table_names_images_beside_it(tmp_path: Path) -> None:
    table = write(tmp_path / "list.csv", "id,file\n1,a.png\n2,sub/b.png\n")

    expected = [("a.png", tmp_path / "a.png"), ("sub/b.png", tmp_path / "sub/b.png")]
    assert images(table, image="file") == expected
    assert images(write(tmp_path / "bare.tsv", "a.png\nsub/b.png\n"), image="file") == expected
    assert images(write(tmp_path / "t.ndjson", '{"file": "a.png"}\n{"file": "sub/b.png"}\n'), image="file") == expected


def test_a_table_may_hold_the_images_themselves(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [b"png", None]}), table)

    assert shown(images(table)) == [(f"{table}:1", b"png"), (f"{table}:2", "the row has nothing in column 'image'")]


def test_standard_input_names_one_per_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = write(tmp_path / "with space.png", "")
    stdin(monkeypatch, f"{photo}\n\n")

    assert images("-") == [(str(photo), photo)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("none.png", "there is no image .*: give an image, a folder of images, or a table"),
        ("x" * 300, "there is no image"),
        ("nul\0", "there is no image"),
        ("", r"holds no images: their names end in \.bmp, "),
    ],
    ids=["none", "long", "nul", "folder"],
)
def test_images_that_are_not_there(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        images(tmp_path / name)


def test_words_are_texts_and_files_hold_them(tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.txt", "\ufeffone\n\n two \r\nthree\u2028and\x0cfour\n")

    assert texts("hello there", lines) == ["hello there", "one", " two ", "three\u2028and\x0cfour"]


@pytest.mark.parametrize("text", ["x" * 5000, "\u4e2d" * 100, "a\0b", ""], ids=["long", "bytes", "nul", "empty"])
def test_texts_that_are_no_name_of_a_file(text: str) -> None:
    assert texts(text) == [text]


def test_lines_of_standard_input_are_always_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "there.txt", "its content\n")
    lines = ["notes.txt", str(file), str(tmp_path), "\u4e2d" * 100, "a\u2028b"]
    stdin(monkeypatch, "\ufeff" + "\n".join(lines) + "\r\n\n")

    assert named_texts("-") == [(line, line) for line in lines]


def test_wrong_bytes_of_standard_input_cost_letters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"caf\xe9\nfine\n")

    assert texts("-", "-") == ["caf\ufffd", "fine"]


@pytest.mark.parametrize(
    ("name", "content", "data"),
    [
        ("t.csv", 'id,text\n1,"one, two"\n2,three\n', {}),
        ("t.csv", '\ufeffid,body\n1,"one, two"\n2,three\n', {"text": "body"}),
        ("t.tsv", "text\tid\none, two\t1\nthree\t2\n", {}),
        ("t.csv", '1,"one, two"\n2,three\n', {"text": 1}),
        ("t.csv", 'number,words\n1,"one, two"\n2,three\n', {"text": 1, "header": True}),
        ("t.csv", '"one, two"\nthree\n', {"text": "body"}),
        ("t.csv", '"one, two"\nthree\n', {"text": 1, "label": 0}),
        ("t.csv", 'id, text \n1,"one, two"\n2,three\n', {}),
        ("t.csv", 'id,text\n1,"one, two"\n2,three\n', {"header": False}),
        ("t.jsonl", '{"text": "one, two", "n": 1}\n{"text": "three"}\n', {}),
        ("t.ndjson", '\ufeff{"text": "one, two"}\n\n{"text": "three"}\n', {}),
    ],
    ids=[
        "name",
        "bom",
        "tsv",
        "position",
        "position-and-header",
        "no-header",
        "position-alone",
        "space",
        "header-false",
        "jsonl",
        "ndjson",
    ],
)
def test_tables_of_texts(tmp_path: Path, name: str, content: str, data: dict[str, object]) -> None:
    assert texts(write(tmp_path / name, content), **data) == ["one, two", "three"]


ROWS = [["one", "1"], [None, "2"], ["three", None], [" ", None], ["U\u2028+\x0c", "x"], [5, 6.0]]


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_a_table_gives_the_items_that_training_reads(tmp_path: Path, suffix: str, pair: bool) -> None:
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        columns = [[row[i] and str(row[i]) for row in ROWS] for i in (0, 1)]
        pq.write_table(pa.table({"a": columns[0], "b": columns[1], "label": ["x"] * len(ROWS)}), path)
    elif suffix in (".csv", ".tsv"):
        delimiter = "," if suffix == ".csv" else "\t"
        rows = [[" a", "b ", "label"], *([*row, "x"] for row in ROWS), ["too", "many", "x", "y"], ["few"]]
        write(path, "\ufeff" + "\n\n".join(delimiter.join(str(cell or "") for cell in row) for row in rows))
    else:
        objects = [{"a": a, "b": b, "label": "x"} for a, b in ROWS]
        lines = [*(json.dumps(row, ensure_ascii=False) for row in objects), '{"a": "alone", "label": "x"}', "{", "[1]"]
        write(path, "\ufeff" + "\n\n".join(lines))
    data = TextsConfig(kind="texts", path=str(path), text=["a", "b"], pair=pair)
    found = read_examples(path, path.name, data)

    items = texts(path, text=["a", "b"], pair=pair)

    assert [item for item in items if not isinstance(item, ItemError)] == found.splits["train"].items
    assert sum(isinstance(item, ItemError) for item in items) == len(found.bad) > 0


def test_a_bad_row_is_an_error_in_its_place(tmp_path: Path) -> None:
    lines = ['{"text": null}', "[1]", '{"text": "one"}', '{"id": 1}', "{", '{"text": "two"}', '{"text": " "}']
    table = write(tmp_path / "t.jsonl", "\n".join(lines))

    empty = "the row has nothing in column 'text'"
    assert shown(named_texts(table)) == [
        (f"{table}:1", empty),
        (f"{table}:2", "not a JSON object"),
        ("one", "one"),
        (f"{table}:4", empty),
        (f"{table}:5", "not JSON: Expecting property name enclosed in double quotes: line 2 column 1 (char 2)"),
        ("two", "two"),
        (f"{table}:7", empty),
    ]


def test_rows_of_another_width_or_encoding_are_errors(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", b"id,text\n1,one\n2\n3,a,b\n4,caf" + b"\xe9\n5,f\xc3\xaeve\n")

    assert shown(named_texts(table)) == [
        ("one", "one"),
        (f"{table}:3", "the row has 1 fields instead of 2"),
        (f"{table}:4", "the row has 3 fields instead of 2"),
        (f"{table}:5", "the row isn't UTF-8"),
        ("fîve", "fîve"),
    ]


def test_a_table_of_bad_rows_only_has_an_error_for_each(tmp_path: Path) -> None:
    table = write(tmp_path / "t.jsonl", "[1]\n{\n")

    assert [name for name, _ in named_texts(table)] == [f"{table}:1", f"{table}:2"]


def test_tables_are_read_as_in_training(tmp_path: Path) -> None:
    """Quotes are ordinary in a TSV, and a document may be long."""
    assert texts(write(tmp_path / "t.tsv", 'text\n"so called" art\n"open\n')) == ['"so called" art', '"open']
    assert texts(write(tmp_path / "t.csv", "text\n" + "x" * 200_000 + "\n")) == ["x" * 200_000]


def test_several_columns_are_joined_and_pairs_kept_apart(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "b,a\nworld,hello\n")

    assert texts(table, text=["a", "b"]) == ["hello world"]
    assert texts(table, text=["a", "b"], pair=True) == [("hello", "world")]
    assert named_texts(table, text=["a", "b"]) == [("hello world", "hello world")]
    assert named_texts(table, text=["a", "b"], pair=True) == [("hello world", ("hello", "world"))]


@pytest.mark.parametrize("word", ["hello world", "lines.txt", "-"])
def test_a_single_text_is_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    write(tmp_path / "lines.txt", "hello world\n")
    monkeypatch.chdir(tmp_path)
    stdin(monkeypatch, "hello world\n")

    sentence = r"pairs of texts: give a table \(\.csv.*\.xlsx\) with column 'premise' and column 'hypothesis'"
    with pytest.raises(UsageError, match=sentence):
        texts(word, text=["premise", "hypothesis"], pair=True)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.csv", "", "is empty: give a table .* with column 'text'"),
        ("empty.jsonl", "\n", "is empty"),
        ("names.csv", "id,body\n1,one\n", "no column 'text', it has 'id', 'body': this model reads column 'text'"),
        ("names.jsonl", '{"body": "one"}\n', "no column 'text', it has 'body'"),
        ("quote.csv", 'text\none\n"two\n', r"quote\.csv:3: a quote opens here"),
        ("body.csv", "body\none more\n", "no column 'text', it has 'body'"),
        ("other.csv", "body;label\none more;a\n", "no column 'text', it has 'body', 'label'"),
        ("russian.txt", "что это\n".encode("cp1251"), "isn't UTF-8: name its encoding"),
        ("no.parquet", "text\none\n", "isn't a Parquet file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        texts(write(tmp_path / name, content))


def test_a_header_that_is_declared_has_to_name_the_column(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'text', it has 'one'"):
        texts(write(tmp_path / "t.csv", "one\ntwo\n"), header=True)


def test_pyarrow_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="takes the package pyarrow: pip install pyarrow, or save it as CSV or JSONL"):
        texts(write(tmp_path / "t.parquet", ""))


@pytest.mark.parametrize("name", ["none.csv", "none.ndjson", "none.parquet", "none.txt"])
def test_a_file_that_is_not_there_is_no_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        UsageError, match="there is no file .*: check its path; if it is a text itself, give it through"
    ):
        texts(tmp_path / name)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder: name the files in it \(.*/\*\.csv\)"):
        texts(tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("name", ["t.txt", "t.csv"])
def test_other_encodings_are_read(tmp_path: Path, name: str, encoding: str) -> None:
    content = ("" if name == "t.txt" else "text\r\n") + "ein Café für zwei\r\nund noch eins\r\n"
    assert texts(write(tmp_path / name, content.encode(encoding))) == ["ein Café für zwei", "und noch eins"]


def test_a_text_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    file, table = write(tmp_path / "t.txt", "one\n"), write(tmp_path / "t.csv", "text\none\n")
    monkeypatch.setattr(Path, "open", refuse)
    for path in (file, table):
        with pytest.raises(UsageError, match="can't be read.*Permission denied"):
            texts(path)


def test_what_is_wrong_already_is_not_predicted() -> None:
    def predict(items: Sequence[Item]) -> list[Prediction | ItemError]:
        return [Prediction(str(item).upper(), 1.0, []) if item else ItemError("empty") for item in items]

    wrong = ItemError("not JSON")

    answers = answer([("1", "a"), ("2", wrong), ("3", ""), ("4", "b")], predict)

    assert [(name, str(given) if isinstance(given, ItemError) else given.label) for name, given in answers] == [
        ("1", "A"), ("2", "not JSON"), ("3", "empty"), ("4", "B"),
    ]  # fmt: skip
