"""What a user hands to predict becomes items with names, or one sentence."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from trainyard.core.bundle import Bundle
from trainyard.core.inputs import read_inputs
from trainyard.core.preprocess import Item
from trainyard.errors import UsageError


def bundle(task: str, **data: object) -> Bundle:
    """What reading asks of a bundle: its task and its data's config."""
    facts = SimpleNamespace(task=f"{task}-classification", data=SimpleNamespace(config=data))
    return cast(Bundle, SimpleNamespace(facts=facts))


def images(*words: Path | str, **data: object) -> list[tuple[str, Item]]:
    return list(read_inputs([str(word) for word in words], bundle("image", **data)))


def texts(*words: Path | str, **data: object) -> list[Item]:
    return [item for _, item in read_inputs([str(word) for word in words], bundle("text", **data))]


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


def test_a_table_names_images_beside_it(tmp_path: Path) -> None:
    table = write(tmp_path / "list.csv", "id,file\n1,a.png\n2,sub/b.png\n")

    expected = [("a.png", tmp_path / "a.png"), ("sub/b.png", tmp_path / "sub/b.png")]
    assert images(table, image="file") == expected
    assert images(write(tmp_path / "bare.tsv", "a.png\nsub/b.png\n"), image="file") == expected


def test_standard_input_names_one_per_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = write(tmp_path / "with space.png", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{photo}\n\n"))

    assert images("-") == [(str(photo), photo)]


@pytest.mark.parametrize(("name", "sentence"), [("none.png", "there is no image"), ("", "holds no images")])
def test_images_that_are_not_there(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        images(tmp_path / name)


def test_words_are_texts_and_files_hold_them(tmp_path: Path) -> None:
    lines = write(tmp_path / "lines.txt", "one\n\n two \n")

    assert texts("hello there", "x" * 5000, lines) == ["hello there", "x" * 5000, "one", " two "]


@pytest.mark.parametrize(
    ("name", "content", "data"),
    [
        ("t.csv", 'id,text\n1,"one, two"\n2,three\n', {}),
        ("t.csv", '\ufeffid,body\n1,"one, two"\n2,three\n', {"text": "body"}),
        ("t.tsv", "text\tid\none, two\t1\nthree\t2\n", {}),
        ("t.csv", '1,"one, two"\n2,three\n', {"text": 1}),
        ("t.csv", 'number,words\n1,"one, two"\n2,three\n', {"text": 1, "header": True}),
        ("t.csv", '"one, two"\nthree\n', {"text": "body"}),
        ("t.jsonl", '{"text": "one, two", "n": 1}\n{"text": "three"}\n', {}),
    ],
    ids=["name", "bom", "tsv", "position", "position-and-header", "no-header", "jsonl"],
)
def test_tables_of_texts(tmp_path: Path, name: str, content: str, data: dict[str, object]) -> None:
    assert texts(write(tmp_path / name, content), **data) == ["one, two", "three"]


def test_tables_are_read_as_in_training(tmp_path: Path) -> None:
    """Quotes are ordinary in a TSV, and a document may be long."""
    assert texts(write(tmp_path / "t.tsv", 'text\n"so called" art\n"open\n')) == ['"so called" art', '"open']
    assert texts(write(tmp_path / "t.csv", "text\n" + "x" * 200_000 + "\n")) == ["x" * 200_000]


def test_several_columns_are_joined_and_pairs_kept_apart(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "b,a\nworld,hello\n")

    assert texts(table, text=["a", "b"]) == ["hello world"]
    assert texts(table, text=["a", "b"], pair=True) == [("hello", "world")]
    with pytest.raises(UsageError, match="give a CSV file with two columns"):
        texts("hello world", text=["a", "b"], pair=True)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.csv", "", "is empty"),
        ("short.csv", "id,text\n1,one\n2\n", "only 1 columns"),
        ("bad.jsonl", '{"text": "one"}\n{"texts": "two"}\n', r"bad\.jsonl:2 is no JSON object with the keys"),
        ("bad.jsonl", "[1]\n", r"bad\.jsonl:1"),
        ("quote.csv", 'text\none\n"two\n', r"quote\.csv:3 is no row of a table: unexpected end of data"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        texts(write(tmp_path / name, content))


def test_a_file_that_is_not_there_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        texts(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.jsonl"])
def test_another_encoding_costs_letters_only(tmp_path: Path, name: str) -> None:
    content = {"t.csv": "text\ncaf\xe9\n", "t.txt": "caf\xe9\n", "t.jsonl": '{"text": "caf\xe9"}\n'}[name]

    assert texts(write(tmp_path / name, content.encode("latin-1"))) == ["caf\ufffd"]
