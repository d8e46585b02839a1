"""What can be compared: runs as they were trained, and formats of their exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from trainyard.artifacts.export_record import FormatName, FormatRow, newest_facts, open_trusted
from trainyard.artifacts.run import CONFIG, PREDICTIONS
from trainyard.config.load import flatten
from trainyard.evaluation.paired import Answers
from trainyard.evaluation.predictions import example_ids, read_predictions


@dataclass(frozen=True)
class Candidate:
    """A model that others are compared with.

    Attributes:
        name: Of its experiment and run, and the format's where one was named.
        digest: Of its bundle.
        answers: To its test split.
        row: What its export measured of the named format, otherwise of the one that it recommends; none without one.
        machine: What the export was measured on.
        config: The run's, by dotted keys; empty for a bundle alone.
    """

    name: str
    digest: str
    answers: Answers
    row: FormatRow | None
    machine: Mapping[str, object]
    config: Mapping[str, object]


def open_candidate(run: Path, format: FormatName | None = None) -> Candidate:
    """Reads what a run kept of its answers; a format, and a run of an earlier release, is asked for them again.

    Args:
        run: A run folder, that of an experiment, or a bundle.
        format: One of its newest export, also ``eager``; by default the model as it was trained.

    Raises:
        UsageError: there is no such run or format, or it can't run here.
        BundleError: something was changed.
        DataError: a format can't be asked, as the data can't be read or changed since.
    """
    opened = open_trusted(run, format or "eager")
    bundle, folder = opened.bundle, opened.bundle.path.parent
    if format is None and (folder / PREDICTIONS).is_file():
        kept = read_predictions(folder)
        ids, labels, given = kept.ids, kept.labels, kept.predicted
    else:
        from trainyard.evaluation.evaluate import format_logits

        records, logits = format_logits(opened, format or "eager", [])
        ids, labels, given = example_ids(records), records.labels, logits.numpy().argmax(axis=1)
    names, export, path = np.array(bundle.labels, dtype=object), newest_facts(bundle.path), folder / CONFIG
    return Candidate(
        name=f"{folder.parent.name}/{folder.name}" + (f" {format}" if format else ""),
        digest=bundle.digest,
        answers=dict(zip(ids, zip(names[labels], names[given], strict=True), strict=True)),
        row=export.row(format or export.recommended) if export else None,
        machine=export.machine if export else {},
        config=flatten(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {},
    )


def differing_keys(candidates: Sequence[Candidate]) -> dict[str, list[object]]:
    """The config's keys in which they differ, with the value of each; none where a key isn't there."""
    keys = sorted({key for one in candidates for key in one.config})
    values = {key: [one.config.get(key) for one in candidates] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}
