"""CSV, TSV, JSONL and Parquet, with the oddities that real files have."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import Column
from trainyard.data.tables import Table, TableFile
from trainyard.preprocess.tables import BadRow

# Lone surrogates can't be written as UTF-8, and NUL makes a row bad; both have tests of their own.
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def read(path: Path, content: bytes | str, *wanted: Column, header: bool | None = None) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return TableFile(path, path.name, header).read(wanted or ("text", "label"))


@settings(max_examples=50)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_csv_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], newline: str, mark: bool
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    content = file.getvalue().encode("utf-8-sig" if mark else "utf-8")

    table = read(tmp_path_factory.mktemp("csv") / "t.csv", content)

    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == rows
    assert not table.bad


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", 'text,label\n"two\nlines",a\n\nlast,b\n')

    assert table.sources == ["t.csv:2", "t.csv:5"]


def test_quotes_are_ordinary_in_a_tsv(tmp_path: Path) -> None:
    table = read(tmp_path / "t.tsv", 'text\tlabel\n"so called\t1\nan "apt" title\t0\n')

    assert table.columns["text"] == ['"so called', 'an "apt" title']


def test_huge_fields_are_read(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", f"text,label\n{'x' * 300_000},a\n")

    assert len(str(table.columns["text"][0])) == 300_000


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"only text", "1 fields instead of 2"),
        (b"a, b and c,x", "3 fields instead of 2"),
        (b"caf\xe9,x", "isn't UTF-8"),
        (b"nul\0,x", "NUL"),
        (b'"a"b,x', "not a CSV row"),
    ],
)
def test_a_broken_row_is_bad_and_the_next_is_read(tmp_path: Path, row: bytes, reason: str) -> None:
    table = read(tmp_path / "t.csv", b"text,label\n" + row + b"\ngood,y\n")

    assert [bad.where for bad in table.bad] == ["t.csv:2"]
    assert reason in table.bad[0].reason
    assert table.columns["text"] == ["good"]
    assert table.sources == ["t.csv:3"]


def test_empty_fields_at_the_end_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "text,label\ngood,y,,\n").columns["label"] == ["y"]


def test_a_quote_that_never_closes_is_said_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: a quote opens here"):
        read(tmp_path / "t.csv", 'text,label\nfine,a\n"open,b\nmore,c\n')


def test_utf_16_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-16"):
        read(tmp_path / "t.csv", "text,label\nx,a\n".encode("utf-16"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        path.write_text("text,label,label\na,1,2\n")
    else:
        pq.write_table(pa.table([["a"], ["1"], ["2"]], names=["text", "label", "label"]), path)

    with pytest.raises(DataError, match="2 columns called 'label'"):
        TableFile(path, path.name).read(("text", "label"))


def test_a_missing_column_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'text', it has 'body', 'label'.*data\.header=false"):
        read(tmp_path / "t.csv", "body,label\nx,a\n")


@pytest.mark.parametrize("header", [None, False])
def test_positions_need_no_header(tmp_path: Path, header: bool | None) -> None:
    table = read(tmp_path / "t.csv", "x,a\ny,a\nz,b\nw,b\n", 0, 1, header=header)

    assert table.columns == {0: ["x", "y", "z", "w"], 1: ["a", "a", "b", "b"]}
    assert table.sources[0] == "t.csv:1"


def test_positions_with_a_header_skip_it(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "t,l\nx,a\n", 0, 1, header=True).columns == {0: ["x"], 1: ["a"]}


def test_a_header_that_positions_would_read_as_an_example_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("the label 'label' occurs in the first row only")):
        read(tmp_path / "t.csv", "text,label\nx,a\ny,a\nz,b\n", 0, 1)


def test_names_without_a_header_are_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give positions"):
        read(tmp_path / "t.csv", "x,a\n", "text", "label", header=False)


def test_jsonl_keeps_types_and_lists_bad_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x", "label": 1}), "{", '["x", 1]', "", json.dumps({"label": 0}), b"\xff"]
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)

    table = read(tmp_path / "t.jsonl", content)

    assert table.columns == {"text": ["x", None], "label": [1, 0]}
    assert table.sources == ["t.jsonl:1", "t.jsonl:5"]
    assert [bad.where for bad in table.bad] == ["t.jsonl:2", "t.jsonl:3", "t.jsonl:6"]


def test_json_too_deep_to_be_read_is_one_bad_row(tmp_path: Path) -> None:
    table = read(tmp_path / "t.jsonl", "[" * 200_000 + '\n{"text": "x", "label": 1}\n')

    assert table.columns == {"text": ["x"], "label": [1]}
    assert [bad.where for bad in table.bad] == ["t.jsonl:1"]


def test_rows_and_bad_rows_keep_their_order(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", 'text,label\nx\ny,1\n"a"b,2\nz\nw,3\nv\n')

    rows = [row.where if isinstance(row, BadRow) else row for row in table.in_order(["label", "text"])]
    assert rows == ["t.csv:2", ("t.csv:3", ["1", "y"]), "t.csv:4", "t.csv:5", ("t.csv:6", ["3", "w"]), "t.csv:7"]


def test_parquet_is_read_by_name_and_position(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["x", "y"], "label": [0, None]}), path)

    table = TableFile(path, path.name).read(["text", 2])

    assert table.columns == {"text": ["x", "y"], 2: [0, None]}
    assert table.sources == ["t.parquet:1", "t.parquet:2"]


def test_what_is_no_parquet_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="isn't a Parquet file"):
        read(tmp_path / "t.parquet", "text,label\n")
