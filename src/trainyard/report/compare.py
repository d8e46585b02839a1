"""A comparison for people, in the terminal and as a page, and for scripts as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape

from trainyard.artifacts.bundle import Json
from trainyard.base.files import write_text
from trainyard.evaluation.candidates import Candidate, differing_keys
from trainyard.evaluation.paired import Difference
from trainyard.report.export import milliseconds
from trainyard.report.filling import Filling, without_folders
from trainyard.report.markdown import NONE, number
from trainyard.report.terminal import print_table

MOST_CLASSES = 10
"""Classes that are listed where no more of them differ by more than chance."""
PAGE = Filling("compare.html.j2", "the comparison", {}, escapes=True)


class Model(NamedTuple):
    """A candidate by its letter, and what tells it from the first, which has nothing there."""

    letter: str
    candidate: Candidate
    difference: Difference | None


class Section(NamedTuple):
    """A table, and what is to be known of it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def comparison_json(models: Sequence[Model]) -> Json:
    """All figures, ready for JSON."""
    rows: list[Json] = []
    for letter, one, found in models:
        difference = found and {**asdict(found), "verdict": found.verdict, "complaints": found.complaints}
        row = one.row.model_dump() if one.row else None
        rows.append({"model": letter, "run": one.name, "bundle": one.digest, "export": row, "over_first": difference})
    return {"models": rows, "config": differing_keys([one.candidate for one in models])}


def print_comparison(models: Sequence[Model]) -> None:
    """Prints the tables, and the verdicts last."""
    console = Console()
    for section in _sections(models):
        print_table(section.header, section.rows, escape(section.title))
        if section.note:
            console.print(escape(section.note), highlight=False)
    for verdict in _verdicts(models):
        console.print(escape(verdict), style="bold", highlight=False)


def write_page(path: Path, models: Sequence[Model]) -> None:
    """Writes the same as one HTML file that needs no network."""
    write_text(path, PAGE.fill({"verdicts": _verdicts(models), "sections": _sections(models)}))


def _verdicts(models: Sequence[Model]) -> list[str]:
    """A sentence of each but the first."""
    sentences = []
    for letter, _, one in models:
        if one is None:
            continue
        low, high = (100 * bound for bound in one.accuracy_interval)
        gain = 100 * (one.accuracy[1] - one.accuracy[0])
        changed = ", ".join(f"{part.name} {part.recall[0]:.2f} to {part.recall[1]:.2f}" for part in one.changed_classes)
        figures = f"{gain:+.1f} points of accuracy (95 %: {low:+.1f} to {high:+.1f}, p = {one.p_value:.2g})"
        counts = f"{one.gained:,} gained and {one.lost:,} lost of {one.examples:,} examples that both were tested on"
        sentence = f"{letter} is {one.verdict} A: {figures}, {counts}."
        sentences.append(f"{sentence} Recall changed: {changed}." if changed else sentence)
    return sentences


def _sections(models: Sequence[Model]) -> list[Section]:
    """All tables that have rows."""
    classes = [_classes(letter, one) for letter, _, one in models if one]
    return [one for one in (_scores(models), *classes, _exports(models), _config(models)) if one.rows]


def _scores(models: Sequence[Model]) -> Section:
    rows = []
    reference = models[1].difference
    assert reference is not None, "the second is compared with the first"
    for letter, one, found in models:
        which, among = (0, reference) if found is None else (1, found)
        gain = answers = NONE
        if found:
            low, high = (100 * bound for bound in found.macro_f1_interval)
            gain = f"{100 * (found.macro_f1[1] - found.macro_f1[0]):+.1f} ({low:+.1f} to {high:+.1f})"
            answers = f"{found.same_answers:.1%}"
        rows.append((letter, one.name, number(among.accuracy[which]), number(among.macro_f1[which]), gain, answers))
    note = "F1 over A: points, and their 95 % interval by the paired bootstrap (Efron 1979). As A: the same answers."
    header = ("", "run", "accuracy", "macro-F1", "F1 over A", "as A")
    return Section("Models", header, rows, note)


def _classes(letter: str, found: Difference) -> Section:
    rows = [
        (one.name, f"{one.examples:,}", *(number(recall) for recall in one.recall), f"{one.p_value:.2g}")
        for one in found.classes[: max(MOST_CLASSES, len(found.changed_classes))]
        if one.recall[0] != one.recall[1]
    ]
    note = "p: McNemar's test, corrected for the number of classes (Holm 1979); below 0.05 it isn't chance."
    return Section(f"Classes of {letter} and A", ("class", "examples", "recall of A", f"of {letter}", "p"), rows, note)


def _exports(models: Sequence[Model]) -> Section:
    rows, machines = [], set()
    for letter, one, _ in models:
        if row := one.row:
            p50 = milliseconds(row.latency_ms.p50 if row.latency_ms else None)
            figures = number(row.size_mb, 1), p50, number(row.throughput, 0)
            rows.append((letter, row.name, row.status.replace("_", " "), *figures))
            machines.add(str(one.machine.get("cpu")))
    note = f"Measured on other processors: {', '.join(sorted(machines))}." if len(machines) > 1 else ""
    return Section("What to deploy", ("", "format", "status", "MB", "p50 ms", "examples/s"), rows, note)


def _config(models: Sequence[Model]) -> Section:
    # Folders are cut to their last part: runs of two machines differ in nothing by them.
    differing = differing_keys([one.candidate for one in models]).items()
    rows = [(key, *("" if one is None else str(without_folders(one)) for one in values)) for key, values in differing]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return Section("Config", ("key", *(one.letter for one in models)), rows)
