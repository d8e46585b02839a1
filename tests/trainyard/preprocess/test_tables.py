"""CSV, TSV, JSONL and Parquet, with the oddities that real files have."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.base.errors import DataError, ItemError
from trainyard.preprocess.rows import Column, Dialect, Table
from trainyard.preprocess.tables import read_table

# Lone surrogates can't be written as UTF-8, and NUL makes a row bad; both have tests of their own.
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def read(path: Path, content: bytes | str, *wanted: Column, header: bool | None = None) -> Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    wanted = wanted or ("text", "label")
    return read_table(path, path.name, wanted, dialect=Dialect(header), label=wanted[-1])


def cells(table: Table) -> dict[Column, list[object]]:
    return {column: table.column(column) for column in table.columns}


def sources(table: Table) -> list[str]:
    return [where for where, cells in table.rows if not isinstance(cells, ItemError)]


def bad(table: Table) -> dict[str, str]:
    """Why the rows can't be read that can't."""
    return {where: str(cells) for where, cells in table.rows if isinstance(cells, ItemError)}


@settings(max_examples=50)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_csv_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], newline: str, mark: bool
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    content = file.getvalue().encode("utf-8-sig" if mark else "utf-8")

    table = read(tmp_path_factory.mktemp("csv") / "t.csv", content)

    assert list(zip(table.column("text"), table.column("label"), strict=True)) == rows
    assert not bad(table)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", 'text,label\n"two\nlines",a\n\nlast,b\n')

    assert sources(table) == ["t.csv:2", "t.csv:5"]


def test_quotes_are_ordinary_in_a_tsv(tmp_path: Path) -> None:
    table = read(tmp_path / "t.tsv", 'text\tlabel\n"so called\t1\nan "apt" title\t0\n')

    assert table.column("text") == ['"so called', 'an "apt" title']


def test_huge_fields_are_read(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", f"text,label\n{'x' * 300_000},a\n")

    assert len(str(table.column("text")[0])) == 300_000


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
    table = read(tmp_path / "t.csv", b"text,label\n" + row + "\ngööd,y\n".encode())

    assert list(bad(table)) == ["t.csv:2"]
    assert reason in next(iter(bad(table).values()))
    assert table.column("text") == ["gööd"]
    assert sources(table) == ["t.csv:3"]


def test_empty_fields_at_the_end_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "text,label\ngood,y,,\n").column("label") == ["y"]


def test_a_quote_that_never_closes_is_said_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: a quote opens here"):
        read(tmp_path / "t.csv", 'text,label\nfine,a\n"open,b\nmore,c\n')


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        path.write_text("text,label,label\na,1,2\n")
    else:
        pq.write_table(pa.table([["a"], ["1"], ["2"]], names=["text", "label", "label"]), path)

    with pytest.raises(DataError, match="2 columns called 'label'"):
        read_table(path, path.name, ("text", "label"))


@pytest.mark.parametrize("header", [None, False])
def test_positions_need_no_header(tmp_path: Path, header: bool | None) -> None:
    table = read(tmp_path / "t.csv", "x,a\ny,a\nz,b\nw,b\n", 0, 1, header=header)

    assert cells(table) == {0: ["x", "y", "z", "w"], 1: ["a", "a", "b", "b"]}
    assert sources(table)[0] == "t.csv:1"


def test_positions_with_a_header_skip_it(tmp_path: Path) -> None:
    assert cells(read(tmp_path / "t.csv", "t,l\nx,a\n", 0, 1, header=True)) == {0: ["x"], 1: ["a"]}


def test_jsonl_keeps_types_and_lists_bad_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "x", "label": 1}), "{", '["x", 1]', "", json.dumps({"label": 0}), b"\xff"]
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)

    table = read(tmp_path / "t.jsonl", content)

    assert cells(table) == {"text": ["x", None], "label": [1, 0]}
    assert sources(table) == ["t.jsonl:1", "t.jsonl:5"]
    assert list(bad(table)) == ["t.jsonl:2", "t.jsonl:3", "t.jsonl:6"]


def test_json_too_deep_to_be_read_is_one_bad_row(tmp_path: Path) -> None:
    table = read(tmp_path / "t.jsonl", "[" * 200_000 + '\n{"text": "x", "label": 1}\n')

    assert cells(table) == {"text": ["x"], "label": [1]}
    assert list(bad(table)) == ["t.jsonl:1"]


def test_rows_and_bad_rows_keep_their_order(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv", 'text,label\nx\ny,1\n"a"b,2\nz\nw,3\nv\n')

    rows = [where if isinstance(cells, ItemError) else (where, cells) for where, cells in table.rows]
    assert rows == ["t.csv:2", ("t.csv:3", ("y", "1")), "t.csv:4", "t.csv:5", ("t.csv:6", ("w", "3")), "t.csv:7"]


def test_parquet_is_read_by_name_and_position(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["x", "y"], "label": [0, None]}), path)

    table = read_table(path, path.name, ["text", 2])

    assert cells(table) == {"text": ["x", "y"], 2: [0, None]}
    assert sources(table) == ["t.parquet:1", "t.parquet:2"]


def test_what_is_no_parquet_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="isn't a Parquet file"):
        read(tmp_path / "t.parquet", "text,label\n")


ROWS = [("one, two; three", "a"), ("a | b\tc", "b"), ("Grüße aus Köln", "a"), ("x", "b")] * 2


def written(delimiter: str, encoding: str, before: str = "", after: str = "") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("text", "label"), *ROWS])
    return (before + file.getvalue() + after).encode(encoding)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("columns", [("text", "label"), (0, 1)])
def test_dialects_are_told_apart(tmp_path: Path, delimiter: str, encoding: str, columns: tuple[Column, Column]) -> None:
    table = read(tmp_path / "t.csv", written(delimiter, encoding), *columns, header=True)

    assert list(zip(*(table.column(column) for column in columns), strict=True)) == ROWS
    assert ("separated" in table.note) == (delimiter != ",")
    assert ("in " in table.note) == (not encoding.startswith("utf-8"))


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_what_excel_adds_is_left_out(tmp_path: Path, delimiter: str) -> None:
    content = written(delimiter, "utf-8-sig", f"sep={delimiter}\r\n", f"{delimiter}\r\n" * 30)
    table = read(tmp_path / "t.csv", content)

    assert list(zip(table.column("text"), table.column("label"), strict=True)) == ROWS
    assert sources(table)[0] == "t.csv:3"
    assert not bad(table)


def test_a_dialect_that_is_named_is_used(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text~label\n'日本語, の~テ\n".encode("cp932"))

    table = read_table(path, "t.csv", ("text", "label"), dialect=Dialect(delimiter="~", encoding="cp932"))

    assert cells(table) == {"text": ["'日本語, の"], "label": ["テ"]}


def test_an_alphabet_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"isn't UTF-8: name its encoding, as in data\.encoding=cp1251"):
        read(tmp_path / "t.csv", "text,label\n日本語のテキスト,テ\n".encode("cp932"))


def test_packed_tables_are_read(tmp_path: Path) -> None:
    table = read(tmp_path / "t.csv.gz", gzip.compress(written(",", "utf-8")))

    assert table.column("label") == [label for _, label in ROWS]


def test_a_packed_table_that_was_cut_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv\.gz can't be read"):
        read(tmp_path / "t.csv.gz", gzip.compress(written(",", "utf-8"))[:-20])


def test_a_tsv_of_pandas_has_quotes(tmp_path: Path) -> None:
    rows = [("so called", "a"), ('"quoted" at the start', "b"), ("a\ttab and a\nline", "a")]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter="\t").writerows([("text", "label"), *rows])

    table = read(tmp_path / "t.tsv", file.getvalue())

    assert list(zip(table.column("text"), table.column("label"), strict=True)) == rows
    assert table.note == "with quotes around fields"


def test_a_json_list_is_a_table(tmp_path: Path) -> None:
    table = read(tmp_path / "t.json", json.dumps([{"text": "x", "label": 1}, {"text": "y", "label": 0}]))

    assert cells(table) == {"text": ["x", "y"], "label": [1, 0]}


def swallowing(*, quoted: bool) -> str:
    lines = [f"word number {i},{'ab'[i % 2]}" for i in range(60)]
    lines[20] = '"the cable is broken,a'
    lines[50] = 'the screen has 12",b'
    if quoted:
        lines[5] = '"Hello,\nit broke, what now\n\nthanks, bye",a'
    return "\n".join(["text,label", *lines]) + "\n"


@pytest.mark.parametrize("quoted", [False, True])
def test_rows_that_a_stray_quote_takes_in_are_bad(tmp_path: Path, quoted: bool) -> None:
    table = read(tmp_path / "t.csv", swallowing(quoted=quoted))

    first = 22 + (3 if quoted else 0)
    assert list(bad(table)) == [f"t.csv:{line}" for line in range(first, first + 31)]
    assert f"a quote opens in line {first}" in next(iter(bad(table).values()))
    assert len(sources(table)) == 60 - 31
    in_order = [where for where, _ in table.rows]
    assert in_order == sorted(in_order, key=lambda where: int(where.partition(":")[2]))
    if quoted:
        assert "Hello,\nit broke, what now\n\nthanks, bye" in table.column("text")


def test_texts_of_several_lines_with_commas_are_texts(tmp_path: Path) -> None:
    rows = [(f"Hello {i},\nthe screen broke\nyes, a {i}\nthanks, bye", "ab"[i % 2]) for i in range(20)]
    rows += [(f"one {i}", "ab"[i % 2]) for i in range(20)]
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("text", "label"), *rows])

    table = read(tmp_path / "t.csv", file.getvalue())

    assert not bad(table)
    assert list(zip(table.column("text"), table.column("label"), strict=True)) == rows
