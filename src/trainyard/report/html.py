"""``report.html``: what people look at before they decide, in one file that needs no network."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from trainyard.artifacts.bundle import BundleFacts, find_bundle, read_facts
from trainyard.artifacts.export_record import ExportFacts, newest_facts
from trainyard.artifacts.manifest import digest
from trainyard.artifacts.run import CONFIG, METRICS, METRICS_CSV, REPORT
from trainyard.base.files import write_text
from trainyard.evaluation.baseline import Baseline
from trainyard.evaluation.intervals import wilson_interval
from trainyard.evaluation.predictions import Predictions, read_predictions
from trainyard.evaluation.shown import SUREST
from trainyard.heads.scores import Scores
from trainyard.report.curves import coverage, learning_curve, reliability, to_svg
from trainyard.report.export import COLUMNS, GOOD, export_figure
from trainyard.report.filling import LIBRARY, Filling, last_part, without_folders

MAX_MATRIX = 100
"""Most classes whose confusion matrix is a table; of more, the most frequent confusions are listed alone."""
LISTED = 10
"""Most frequent confusions in the list."""
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
    run = bundle.parent
    predictions, facts = read_predictions(run), read_facts(bundle)
    write_text(run / REPORT, HTML.fill(_known(run, bundle, facts, predictions)))
    return run / REPORT


def _known(run: Path, bundle: Path, facts: BundleFacts, predictions: Predictions) -> dict[str, object]:
    """What a template can tell."""
    test = Scores.from_dict(facts.metrics["test"])  # type: ignore[arg-type]
    metrics = json.loads((run / METRICS).read_text(encoding="utf-8"))
    config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    cells = _cells(predictions)
    confusions = sorted((cell for key, cell in cells.items() if key[0] != key[1]), key=lambda cell: -cell.count)
    script = (LIBRARY / "report.js").read_text(encoding="utf-8")
    export = newest_facts(bundle)
    report = facts.data.report
    return {
        "name": facts.name,
        "facts": facts,
        "run": run.name,
        "digest": digest(bundle),
        "modality": facts.kind,
        "classes": predictions.classes,
        "test": test,
        "interval": wilson_interval(test.correct, test.examples),
        "metrics": metrics,
        "baseline": Baseline.model_validate(metrics["baseline"]),
        "min_gain": config["trainer"].get("min_gain"),
        "cells": cells,
        "confusions": confusions[:LISTED],
        "matrix": len(predictions.classes) <= MAX_MATRIX,
        "surest": _surest(predictions),
        "sure_mistakes": int((~predictions.right & (predictions.confidence > SURE)).sum()),
        "worst": min(test.per_class, key=lambda name: (test.per_class[name].f1, name)),
        "trait": predictions.trait,
        "slices": _slices(predictions),
        "data": {**report, "location": last_part(facts.data.location)},
        "figures": _figures(run, predictions, test, export),
        "export": export,
        "columns": [column.title for column in COLUMNS],
        "formats": [(row, [column.cell(row) for column in COLUMNS]) for row in export.formats] if export else [],
        "good": GOOD,
        "config": without_folders(config),
        "environment": {
            **{key: value for key, value in facts.training.items() if key != "config"},
            **facts.environment,
        },
        "style": (LIBRARY / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _cells(predictions: Predictions) -> dict[tuple[int, int], Cell]:
    """By true and predicted class; of right answers the least sure are shown first, of wrong ones the surest."""
    pairs = list(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    counts, true = Counter(pairs), Counter(predictions.labels.tolist())
    cells = {pair: Cell(*pair, count, count / true[pair[0]], []) for pair, count in sorted(counts.items())}
    order = np.argsort(np.where(predictions.right, 1, -1) * predictions.confidence, kind="stable")
    for i in order.tolist():
        if predictions.shown[i] is not None:
            cells[pairs[i]].examples.append(_example(predictions, i))
    return cells


def _surest(predictions: Predictions) -> list[Example]:
    wrong = np.flatnonzero(~predictions.right)
    order = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    return [_example(predictions, i) for i in order.tolist() if predictions.shown[i] is not None][:SUREST]


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
    slices = []
    for part in np.unique(place).tolist():
        inside, hits = traits[place == part], int(right[place == part].sum())
        interval = wilson_interval(hits, len(inside))
        slices.append(Slice(float(inside.min()), float(inside.max()), len(inside), hits / len(inside), interval))
    return slices


def _figures(
    run: Path, predictions: Predictions, test: Scores, export: ExportFacts | None
) -> Mapping[str, tuple[str, str]]:
    """Data URLs of the figures, each with what it shows in words."""
    answers = predictions.confidence, predictions.right
    surer = predictions.right[np.argsort(-predictions.confidence, kind="stable")[: max(1, test.examples // 2)]]
    figures = {
        "reliability": (reliability(*answers), f"Reliability, with a calibration error of {test.ece:.3f}."),
        "coverage": (coverage(*answers), f"Accuracy over coverage: {surer.mean():.1%} of the surer half are right."),
    }
    if rows := _epochs(run):
        for name, columns in (("loss", ("train_loss", "val_loss")), ("scores", ("val_accuracy", "val_macro_f1"))):
            values = [row[columns[-1]] for row in rows]
            text = f"{columns[-1]} over {len(rows)} epochs: {values[0]:.3f} at first, {values[-1]:.3f} at the end."
            figures[name] = (learning_curve(rows, columns), text)
    if export:
        text = f"Accuracy and latency of the formats; {export.recommended} is recommended."
        figures["formats"] = (export_figure(export), text)
    return {name: (_data_url(to_svg(figure), "svg+xml"), text) for name, (figure, text) in figures.items()}


def _epochs(run: Path) -> Sequence[Mapping[str, float]]:
    path = run / METRICS_CSV
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else []
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


HTML = Filling("report.html.j2", "the report", {"percent": lambda share: f"{share:.1%}"}, escapes=True)
