"""``report.html``: what people look at before they decide, in one file that needs no network."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from trainyard.artifacts.bundle import Json, find_bundle, read_facts
from trainyard.artifacts.export_record import ExportFacts, newest_facts
from trainyard.artifacts.manifest import digest
from trainyard.artifacts.run import CONFIG, METRICS, METRICS_CSV, REPORT
from trainyard.base.files import write_text
from trainyard.base.words import counted
from trainyard.evaluation.baseline import Baseline
from trainyard.evaluation.intervals import wilson_interval
from trainyard.evaluation.predictions import Predictions, read_predictions
from trainyard.evaluation.shown import SUREST
from trainyard.heads.scores import Scores
from trainyard.report.curves import coverage, learning_curve, reliability
from trainyard.report.export import COLUMNS, export_figure
from trainyard.report.figures import drawn
from trainyard.report.filling import Filling, last_part, without_folders

MOST_CONFUSED = 50
"""Confusions that are listed of so many classes that their matrix would be too large to look at."""
PER_SLICE, MAX_SLICES = 20, 5
"""Least test examples of a slice by length or brightness, and most slices."""
SURE = 0.9


class Example(NamedTuple):
    """A test example, with its picture as a data URL, or the beginning of its text."""

    source: str
    label: str
    predicted: str
    confidence: float
    second: str
    """The class that comes next in probability; empty where there is one alone."""
    text: str
    picture: str


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix that isn't empty."""

    label: int
    predicted: int
    count: int
    share: float
    """Of the examples of the true class."""
    examples: list[Example]


class Slice(NamedTuple):
    """The test examples with a length or a brightness within two bounds."""

    low: float
    high: float
    examples: int
    accuracy: float
    interval: tuple[float, float]


def write_report(run: Path) -> Path:
    """Draws the report of a finished run, with its newest export if there is one; returns the file.

    Args:
        run: The run's folder, that of its experiment, or its bundle.

    Raises:
        UsageError: it isn't a finished run, or one of a release that kept no predictions.
        BundleError: the bundle or the export can't be read.
    """
    bundle = find_bundle(run)
    run, epochs = bundle.parent, bundle.parent / METRICS_CSV
    predictions = read_predictions(run)
    metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    rows = csv.DictReader(epochs.read_text(encoding="utf-8").splitlines()) if epochs.is_file() else []
    known = [{name: float(value) for name, value in row.items() if value} for row in rows]
    write_text(run / REPORT, HTML.fill(_known(bundle, predictions, metrics, config, known)))
    return run / REPORT


def check_report(bundle: Path, predictions: Predictions, metrics: Json, config: Json) -> None:
    """Fills the project's template, if it has one, with what a rehearsal left, so that a run ends as well as it starts.

    Every other answer is said to be wrong, so that each section has something to show.

    Raises:
        UsageError: it has a mistake; names file and line.
    """
    if HTML.is_owned():
        labels = (predictions.predicted + np.arange(len(predictions.labels)) % 2) % len(predictions.classes)
        epoch = dict.fromkeys(("epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_f1"), 1.0)
        HTML.fill_strictly(_known(bundle, replace(predictions, labels=labels), metrics, config, [epoch]))


def _known(
    bundle: Path, predictions: Predictions, metrics: Json, config: Json, epochs: Sequence[Mapping[str, float]]
) -> Json:
    """What a template can tell."""
    facts, export = read_facts(bundle), newest_facts(bundle)
    test = Scores.from_dict(facts.metrics["test"])  # type: ignore[arg-type]
    cells = _cells(predictions)
    confusions = sorted((cell for cell in cells.values() if cell.label != cell.predicted), key=lambda cell: -cell.count)
    wrong = ~predictions.right
    mistakes = predictions.order[: int(wrong.sum())]
    return {
        "name": facts.name,
        "facts": facts,
        "run": bundle.parent.name,
        "digest": digest(bundle),
        "modality": facts.kind,
        "classes": predictions.classes,
        "test": test,
        "interval": wilson_interval(test.correct, test.examples),
        "metrics": metrics,
        "baseline": Baseline.model_validate(metrics["baseline"]),
        "min_gain": config["trainer"].get("min_gain"),  # type: ignore[attr-defined]
        "cells": cells,
        "confusions": confusions[:MOST_CONFUSED],
        "surest": [_example(predictions, i) for i in mistakes if predictions.shown[i] is not None][:SUREST],
        "sure_mistakes": int((wrong & (predictions.confidence > SURE)).sum()),
        "worst": min(test.per_class, key=lambda name: (test.per_class[name].f1, name)),
        "trait": predictions.trait,
        "slices": _slices(predictions),
        "data": {**facts.data.report, "location": last_part(facts.data.location)},
        "figures": _figures(epochs, predictions, test, export),
        "export": export,
        "columns": [column.title for column in COLUMNS],
        "formats": [(row, [column.cell(row) for column in COLUMNS]) for row in export.formats] if export else [],
        "config": without_folders(config),
        "environment": {key: one for key, one in (facts.training | facts.environment).items() if key != "config"},
    }


def _cells(predictions: Predictions) -> dict[tuple[int, int], Cell]:
    """By true and predicted class; the examples of each in the order in which they are told."""
    pairs = list(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    counts, true = Counter(pairs), Counter(predictions.labels.tolist())
    cells = {pair: Cell(*pair, count, count / true[pair[0]], []) for pair, count in sorted(counts.items())}
    for i in predictions.order:
        if predictions.shown[i] is not None:
            cells[pairs[i]].examples.append(_example(predictions, i))
    return cells


def _example(predictions: Predictions, i: int) -> Example:
    shown, names = predictions.shown[i], predictions.classes
    order = np.argsort(-predictions.probabilities[i], kind="stable")
    return Example(
        source=predictions.sources[i],
        label=names[predictions.labels[i]],
        predicted=names[order[0]],
        confidence=float(predictions.probabilities[i, order[0]]),
        second=names[order[1]] if len(order) > 1 else "",
        text=shown if isinstance(shown, str) else "",
        picture=_data_url(shown, "png" if shown[:4] == b"\x89PNG" else "jpeg") if isinstance(shown, bytes) else "",
    )


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _slices(predictions: Predictions) -> list[Slice]:
    """Parts of the test split of about the same size, by length or brightness; none if it is small."""
    known = np.isfinite(predictions.traits)
    traits, right = predictions.traits[known], predictions.right[known]
    count = min(MAX_SLICES, len(traits) // PER_SLICE)
    if count < 2:
        return []
    edges = np.unique(np.quantile(traits, np.linspace(0, 1, count + 1)))
    place = np.searchsorted(edges[1:-1], traits, side="right")
    parts = [(traits[place == part], right[place == part]) for part in np.unique(place)]
    return [
        Slice(float(inside.min()), float(inside.max()), len(hits), float(hits.mean()),
              wilson_interval(int(hits.sum()), len(hits)))
        for inside, hits in parts
    ]  # fmt: skip


def _figures(
    epochs: Sequence[Mapping[str, float]], predictions: Predictions, test: Scores, export: ExportFacts | None
) -> dict[str, tuple[str, str]]:
    """Data URLs of the figures, each with what it shows in words."""
    answers = predictions.confidence, predictions.right
    surer = predictions.right[np.argsort(-predictions.confidence, kind="stable")[: max(1, test.examples // 2)]]
    figures = {
        "reliability": (reliability(*answers), f"Reliability, with a calibration error of {test.ece:.3f}."),
        "coverage": (coverage(*answers), f"Accuracy over coverage: {surer.mean():.1%} of the surer half are right."),
    }
    for name, columns in (("loss", ("train_loss", "val_loss")), ("scores", ("val_accuracy", "val_macro_f1"))):
        if values := [row[columns[-1]] for row in epochs]:
            told = f"{values[0]:.3f} at first, {values[-1]:.3f} at the end"
            text = f"{columns[-1]} over {counted(len(values), 'epoch')}: {told}."
            figures[name] = (learning_curve(epochs, columns), text)
    if export:
        text = f"Accuracy and latency of the formats; {export.recommended} is recommended."
        figures["formats"] = (export_figure(export), text)
    return {name: (_data_url(drawn(figure, "svg"), "svg+xml"), text) for name, (figure, text) in figures.items()}


def _hash(script: str) -> str:
    """By which a content policy knows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


HTML = Filling("report.html.j2", "the report", {"percent": lambda share: f"{share:.1%}", "sha256": _hash}, escapes=True)
