"""Scores and answers for people, for scripts (JSON) and for spreadsheets (CSV)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from trainyard.base.errors import ItemError, TrainyardError, UsageError
from trainyard.base.files import write_text
from trainyard.base.words import counted
from trainyard.heads.base import Prediction, answer_row
from trainyard.preprocess.text import without_surrogates
from trainyard.report.markdown import number

if TYPE_CHECKING:
    from trainyard.heads.scores import Scores

Answers = Sequence[tuple[str, Prediction | ItemError]]


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Prints a table of words as they are; what is too long for the terminal goes on in the next line."""
    table = Table(*(Column(escape(name), overflow="fold") for name in header), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def print_scores(scores: Scores) -> None:
    """Prints the summary and a row per class."""
    shares = {name: (row.precision, row.recall, row.f1) for name, row in scores.per_class.items()}
    rows = ((name, *map(number, of), str(scores.per_class[name].support)) for name, of in shares.items())
    print_table(("class", "precision", "recall", "F1", "examples"), rows)
    own = "".join(f"{name} {value:.4f}, " for name, value in scores.metrics.items())
    Console().print(
        f"accuracy {scores.accuracy:.4f}, macro-F1 {scores.macro_f1:.4f}, loss {scores.loss:.4f}, "
        f"calibration error {scores.ece:.4f}, {own}{counted(scores.examples, 'example')}",
        highlight=False,
    )


def print_predictions(answers: Answers, as_json: bool) -> None:
    """Prints a table, or a JSON object per line."""
    if as_json:
        for name, answer in answers:
            print(json.dumps({"input": without_surrogates(name), **answer_row(answer)}, ensure_ascii=False))
        return
    table = Table("input", "label", "probability", "next")
    for name, answer in answers:
        if isinstance(answer, ItemError):
            table.add_row(escape(_short(name)), "error", "", escape(str(answer)), style="red")
        else:
            others = ", ".join(f"{label} {probability:.3f}" for label, probability in answer.top[1:])
            label = escape(answer.label) + (" [yellow](uncertain)[/]" if answer.uncertain else "")
            table.add_row(escape(_short(name)), label, f"{answer.probability:.4f}", escape(others))
    Console().print(table)


def check_writable(path: Path) -> None:
    """Finds out before the predictions are made whether their file can be written.

    Raises:
        UsageError: it can't.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise UsageError(f"--out={path} is {kind}: name a CSV file, such as --out=answers.csv")
    if not path.parent.is_dir():
        raise UsageError(f"--out={path} can't be written: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out={path} can't be written: you may not write to {path.parent}; name another folder")


def write_predictions(path: Path, answers: Answers) -> None:
    """Writes ``input,label,probability,error`` as CSV, atomically; ``uncertain`` too, where the model tells it.

    Raises:
        TrainyardError: the disk is full, or the file's name is too long.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    marked = any(isinstance(answer, Prediction) and answer.uncertain is not None for _, answer in answers)
    writer.writerow(["input", "label", "probability", "error", *(["uncertain"] if marked else [])])
    for name, answer in answers:
        if isinstance(answer, ItemError):
            row, mark = ["", "", str(answer)], ""
        else:
            row, mark = [answer.label, f"{answer.probability:.6f}", ""], str(bool(answer.uncertain)).lower()
        writer.writerow([without_surrogates(name), *row, *([mark] if marked else [])])
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise TrainyardError(f"--out={path} can't be written ({error.strerror}): name another file") from error


def _short(name: str, width: int = 60) -> str:
    name = without_surrogates(name)
    return name if len(name) <= width else name[: width - 1] + "…"
