"""From columns to examples: which column is what, and what counts as missing."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.labels import label_name
from trainyard.data.sources import read_source

Images = Callable[..., ImagesConfig]
Texts = Callable[..., TextsConfig]

PAIRS = "premise,hypothesis,gold\nit rains,it is wet,yes\n,only one,no\n"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(PAIRS)
    return path


def test_text_and_label_name_the_columns(pairs: Path, texts: Texts) -> None:
    rows = read_source(texts(pairs, text="hypothesis", label="gold")).splits["train"]

    assert rows.items == ["it is wet", "only one"]
    assert rows.labels == ["yes", "no"]


def test_several_columns_are_joined_by_a_space(pairs: Path, texts: Texts) -> None:
    rows = read_source(texts(pairs, text=["premise", "hypothesis"], label="gold")).splits["train"]

    assert rows.items == ["it rains it is wet", "only one"]


def test_pair_keeps_two_columns_apart(pairs: Path, texts: Texts) -> None:
    rows = read_source(texts(pairs, text=["premise", "hypothesis"], label="gold", pair=True)).splits["train"]

    assert rows.items == [("it rains", "it is wet"), ("", "only one")]


def test_a_pair_of_one_column_is_refused(texts: Texts) -> None:
    with pytest.raises(ValidationError, match="needs two columns"):
        texts("x.csv", text="premise", pair=True)


def test_header_says_whether_the_first_row_is_an_example(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("x,a\ny,b\n")

    assert len(read_source(texts(tmp_path / "t.csv", text=0, label=1, header=False)).splits["train"]) == 2
    assert len(read_source(texts(tmp_path / "t.csv", text=0, label=1, header=True)).splits["train"]) == 1


def test_a_split_column_divides_a_table(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("text,label,split\nx,a,train\ny,b,TRAIN\nz,a,dev\nw,b,test\nv,a,\n")

    found = read_source(texts(tmp_path / "t.csv"))

    assert {split: rows.items for split, rows in found.splits.items()} == {
        "train": ["x", "y"],
        "val": ["z"],
        "test": ["w"],
    }
    assert [(bad.where, bad.reason) for bad in found.bad] == [("t.csv:6", "its split is none of train, val and test")]


def test_a_broken_row_of_a_divided_table_makes_no_split(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("text,label,split\nx,a,test\nbroken\ny,b,test\n")

    found = read_source(texts(tmp_path / "t.csv"))

    assert {split: rows.items for split, rows in found.splits.items()} == {"test": ["x", "y"]}
    assert [bad.where for bad in found.bad] == ["t.csv:3"]
    assert not found.warnings


def test_missing_labels_and_empty_texts_are_bad(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text('text,label\nx,a\n"  ",b\ny,\nz,b\n')

    found = read_source(texts(tmp_path / "t.csv"))

    assert [(bad.where, bad.reason) for bad in found.bad] == [("t.csv:3", "empty"), ("t.csv:4", "no label")]
    assert found.splits["train"].items == ["x", "z"]
    assert found.total == 4


def test_a_split_without_labels_is_not_used(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "train.csv").write_text("text,label\nx,a\ny,b\n")
    (tmp_path / "test.csv").write_text("text,label\nx,\ny,\n")

    found = read_source(texts(tmp_path))

    assert set(found.splits) == {"train"}
    assert not found.bad
    assert "test split has no labels" in found.warnings[0]


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, ""), (float("nan"), ""), (" ", ""), (0, "0"), (1.0, "1.0"), (1.5, "1.5"), (" a ", "a"), (True, "True")],
)
def test_labels_become_names(value: object, name: str) -> None:
    assert label_name(value) == name


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_image_paths_are_relative_to_their_folder(
    tmp_path: Path, images: Images, write_images: Callable[..., None], kind: str
) -> None:
    write_images(tmp_path / "d" / "pics", {"cat": 1, "dog": 1})
    rows = [{"file": f"pics/{name}/000.png", "kind": name} for name in ("cat", "dog")]
    path = tmp_path / "d" / f"table.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        delimiter = {"csv": ",", "tsv": "\t"}[kind]
        path.write_text("\n".join(delimiter.join(row) for row in [("file", "kind"), *(r.values() for r in rows)]))

    found = read_source(images(path, image="file", label="kind"))

    assert found.splits["train"].items == [tmp_path / "d" / row["file"] for row in rows]
    assert found.splits["train"].labels == ["cat", "dog"]


def test_parquet_may_hold_the_images_themselves(tmp_path: Path, images: Images) -> None:
    rows = [{"image": {"bytes": b"png", "path": "x.png"}, "label": 0}, {"image": None, "label": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")

    found = read_source(images(tmp_path / "t.parquet"))

    assert found.splits["train"].items == [b"png"]
    assert [bad.where for bad in found.bad] == ["t.parquet:2"]


def test_a_column_that_is_not_there_lists_those_that_are(pairs: Path, images: Images) -> None:
    with pytest.raises(DataError, match="no column 'image', it has 'premise', 'hypothesis', 'gold'"):
        read_source(images(pairs))


def test_a_missing_column_may_be_a_missing_header(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("body,label\nx,a\n")

    with pytest.raises(DataError, match=r"no column 'text', it has 'body', 'label'.*data\.header=false"):
        read_source(texts(tmp_path / "t.csv"))


def test_a_header_that_positions_would_read_as_an_example_is_asked_for(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("text,label\nx,a\ny,a\nz,b\n")

    with pytest.raises(DataError, match="the label 'label' occurs in the first row only"):
        read_source(texts(tmp_path / "t.csv", text=0, label=1))


def test_names_without_a_header_are_a_contradiction(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("x,a\n")

    with pytest.raises(UsageError, match="give positions"):
        read_source(texts(tmp_path / "t.csv", header=False))


def test_a_column_called_split_is_said_and_can_be_left_alone(tmp_path: Path, texts: Texts) -> None:
    rows = [f"text {i},{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]},{i % 5}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label,split,fold", *rows]))

    divided = read_source(texts(tmp_path / "t.csv"))
    whole = read_source(texts(tmp_path / "t.csv", split=None))

    assert set(divided.splits) == {"train", "val", "test"}
    assert divided.notes == ["t.csv is divided by its column 'split' (data.split=null takes it for one like others)"]
    assert set(whole.splits) == {"train"}
    assert not whole.notes


def test_a_column_of_splits_that_is_named_has_to_be_there(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.csv").write_text("text,label,part\nx,a,train\ny,b,test\n")

    assert set(read_source(texts(tmp_path / "t.csv", split="part")).splits) == {"train", "test"}
    with pytest.raises(DataError, match="has no column 'fold'"):
        read_source(texts(tmp_path / "t.csv", split="fold"))


def test_a_table_to_be_predicted_is_no_test_split(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "train.csv").write_text("id,text,label\n1,x,a\n2,y,b\n")
    (tmp_path / "test.csv").write_text("id,text\n3,z\n")
    (tmp_path / "sample_submission.csv").write_text("id,label\n3,a\n")

    found = read_source(texts(tmp_path))

    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2}
    assert found.warnings[0] == "test.csv has no column 'label' of labels and isn't used"
    assert "sample_submission.csv" in found.warnings[1]


def test_a_training_table_needs_its_labels(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "train.csv").write_text("text\nx\n")

    with pytest.raises(DataError, match=r"train\.csv has no column 'label'"):
        read_source(texts(tmp_path))


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (
            {"body": "x", "n": 1},
            r"the text is an object with 'body', 'n': name .*, as in data\.text=COLUMN\.body",
        ),
        (["x", "y"], "the text is a list, not a string"),
        (b"\xff\xfe", "the text is bytes that aren't UTF-8"),
        (datetime.date(2026, 1, 2), r"the text is a date, not a string: name another column with data\.text"),
    ],
)
def test_what_is_no_text_is_a_bad_row(tmp_path: Path, texts: Texts, cell: object, reason: str) -> None:
    rows = [{"text": cell, "label": "a"}, {"text": cell, "label": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")

    found = read_source(texts(tmp_path / "t.parquet"))

    assert [bad.where for bad in found.bad] == ["t.parquet:1", "t.parquet:2"]
    assert re.match(reason, found.bad[0].reason)
    assert not found.splits


def test_bytes_of_a_text_are_a_text(tmp_path: Path, texts: Texts) -> None:
    rows = [{"text": "größer".encode(), "label": b"a"}, {"text": b"x", "label": b"b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")

    train = read_source(texts(tmp_path / "t.parquet")).splits["train"]

    assert (list(train.items), list(train.labels)) == (["größer", "x"], ["a", "b"])


def test_what_lies_inside_an_object_has_a_name(tmp_path: Path, texts: Texts) -> None:
    rows = [{"data": {"body": "x"}, "label": "a"}, {"data": {"body": "y"}, "label": "b"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))

    assert read_source(texts(tmp_path / "t.jsonl", text="data.body")).splits["train"].items == ["x", "y"]


@pytest.mark.parametrize("label", [["a"], {"a": 1}])
def test_what_is_no_name_is_a_bad_label(tmp_path: Path, texts: Texts, label: object) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x", "label": label}) + '\n{"text": "y", "label": "b"}\n')

    found = read_source(texts(tmp_path / "t.jsonl"))

    assert [bad.where for bad in found.bad] == ["t.jsonl:1"]
    assert "data.label" in found.bad[0].reason


def test_a_label_that_is_not_unicode_is_a_bad_row(tmp_path: Path, texts: Texts) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "x", "label": "a\\ud800"}\n{"text": "y", "label": "b"}\n')

    found = read_source(texts(tmp_path / "t.jsonl"))

    assert [(bad.where, bad.reason) for bad in found.bad] == [
        ("t.jsonl:1", r"the label 'a\ud800' isn't Unicode: give it another name")
    ]
