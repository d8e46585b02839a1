"""Scores and answers as tables, JSON and CSV: what a name holds is shown as it is."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from trainyard.base.errors import ItemError, TrainyardError, UsageError
from trainyard.heads.base import Prediction
from trainyard.heads.scores import ClassScores, Scores
from trainyard.report.terminal import Answers, check_writable, print_predictions, print_scores, write_predictions

ANSWERS: Answers = [
    ("cat.jpg", Prediction("cat [small]", 0.75, [("cat [small]", 0.75), ("[bold]dog", 0.2), ("cow", 0.05)])),
    ("a text with [/b] in it, and a comma", Prediction("dog", 1.0, [("dog", 1.0)])),
    ("broken.jpg", ItemError("broken.jpg [0 bytes] can't be decoded")),
]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_scores_have_a_row_per_class(capsys: pytest.CaptureFixture[str]) -> None:
    per_class = {"[red]": ClassScores(0.5, 0.25, 0.3333, 4), "blue": ClassScores(1.0, 0.875, 0.9333, 1200)}

    print_scores(Scores(0.8731, 0.6333, 0.4512, 0.0312, 1204, per_class, [[1, 3], [150, 1050]]))

    shown = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.splitlines()]
    assert "[red] 0.5000 0.2500 0.3333 4" in lines
    assert "blue 1.0000 0.8750 0.9333 1200" in lines
    assert lines[-1] == "accuracy 0.8731, macro-F1 0.6333, loss 0.4512, calibration error 0.0312, 1,204 examples"


def test_answers_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(ANSWERS, as_json=False)

    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "cat.jpg cat [small] 0.7500 [bold]dog 0.200, cow 0.050" in lines
    assert "a text with [/b] in it, and a comma dog 1.0000" in lines
    assert "broken.jpg error broken.jpg [0 bytes] can't be decoded" in lines


def test_uncertain_answers_are_marked_where_the_model_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sure, unsure = (Prediction("a", p, [("a", p)], uncertain=p < 0.9) for p in (0.95, 0.5))
    answers: Answers = [("1", sure), ("2", unsure), ANSWERS[2]]

    print_predictions(answers, as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    print_predictions(answers, as_json=False)
    write_predictions(tmp_path / "marked.csv", answers)
    write_predictions(tmp_path / "plain.csv", ANSWERS)

    assert [row.get("uncertain") for row in rows] == [False, True, None]
    assert capsys.readouterr().out.count("a (uncertain)") == 1
    marked = list(csv.DictReader((tmp_path / "marked.csv").read_text().splitlines()))
    assert [row["uncertain"] for row in marked] == ["false", "true", ""]
    assert "uncertain" not in (tmp_path / "plain.csv").read_text()


def test_long_texts_are_cut_in_the_table_only(capsys: pytest.CaptureFixture[str]) -> None:
    text = "long " * 100
    answers = [(text, Prediction("a", 1.0, [("a", 1.0)]))]

    print_predictions(answers, as_json=False)
    table = capsys.readouterr().out
    print_predictions(answers, as_json=True)

    assert ("long " * 12)[:59] + "…" in table
    assert json.loads(capsys.readouterr().out)["input"] == text


def test_json_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_predictions(ANSWERS, as_json=True)

    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["label"] == "cat [small]"
    assert first["top"][1] == {"label": "[bold]dog", "probability": 0.2}
    assert second == {"input": ANSWERS[1][0], "label": "dog", "probability": 1.0, "top": second["top"]}
    assert third == {"input": "broken.jpg", "error": "broken.jpg [0 bytes] can't be decoded"}


def test_csv_reads_back(tmp_path: Path) -> None:
    write_predictions(tmp_path / "answers.csv", ANSWERS)

    first, second, third = csv.DictReader((tmp_path / "answers.csv").read_text().splitlines())
    assert first == {"input": "cat.jpg", "label": "cat [small]", "probability": "0.750000", "error": ""}
    assert second["input"] == ANSWERS[1][0]
    assert (third["label"], third["error"]) == ("", "broken.jpg [0 bytes] can't be decoded")


def test_half_a_character_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name needn't be UTF-8, and JSON may hold a lone surrogate."""
    answers = [("caf\udce9.jpg", Prediction("a", 1.0, [("a", 1.0)]))]

    for as_json in (False, True):
        print_predictions(answers, as_json)
        assert "caf\ufffd.jpg" in capsys.readouterr().out
    write_predictions(tmp_path / "answers.csv", answers)
    assert "caf\ufffd.jpg,a," in (tmp_path / "answers.csv").read_text()


def test_a_file_of_answers_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("old")

    check_writable(tmp_path / "answers.csv")
    check_writable(tmp_path / "new.csv")
    check_writable(Path("new.csv"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (".", "is a folder: name a CSV file"),
        ("/dev/null", "is no file: name a CSV file"),
        ("none/answers.csv", "there is no folder .*none; create it first"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_out_before(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_writable(tmp_path / name)


def test_a_folder_that_may_not_be_written_is_found_out_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match="you may not write to .*; name another folder"):
        check_writable(tmp_path / "answers.csv")


def test_a_write_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"can't be written \(File name too long\): name another file"):
        write_predictions(tmp_path / ("x" * 300), ANSWERS)
