"""Checks of a config's data: what training would stumble over, and what would make its result worth little."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trainyard.base.errors import TrainyardError
from trainyard.base.words import counted
from trainyard.data.records import SPLITS, Split
from trainyard.data.report import MAX_LISTED, DataReport, first_bad
from trainyard.doctor.checks import Check

if TYPE_CHECKING:
    from trainyard.config.experiment import Experiment

MAX_IMBALANCE = 10
"""The largest class may have this many times the training examples of the smallest."""
MIN_PER_CLASS = 20
"""Fewer examples of a class in a split teach or measure little."""
FEW_FIX: dict[Split, str] = {
    "train": "collect more examples of them",
    "val": "add some (if it is held out: by data.val_fraction), since they decide which epoch is the best",
    "test": "add some (if it is held out: by data.test_fraction), since the scores of these classes are rough",
}
OTHERS_FIX = "change the data or the config so that it goes away, or leave it if this is what you mean"
SHOWN = 5
"""Classes and copies named in one row."""


def check_start(experiment: Experiment) -> list[Check]:
    """What ``train`` refuses before it reads the data, each as a row; nothing where it refuses nothing."""
    from trainyard.training.preflight import PREFLIGHT

    checks = []
    for name, check in PREFLIGHT.items():
        try:
            check(experiment)
        except TrainyardError as error:
            checks.append(Check(name, "error", str(error)))
    return checks


def check_data(experiment: Experiment) -> list[Check]:
    """Loads the data as training would, and judges what was found; an error of loading is a row too."""
    from trainyard.data.load import load_dataset

    try:
        report = load_dataset(experiment.data, experiment.seed).report
    except TrainyardError as error:
        return [Check("data", "error", str(error))]
    return judge(report)


def check_rehearsal(experiment: Experiment) -> list[Check]:
    """Has the project's run rehearse, on data that can be loaded; nothing is trained, and no file is left."""
    from trainyard.training.rehearsal import rehearse_only

    library = logging.getLogger("trainyard")
    level = library.level
    library.setLevel(logging.ERROR)  # what loading says is in other rows
    try:
        rehearse_only(experiment)
    except TrainyardError as error:
        return [Check("rehearsal", "error", str(error))]
    finally:
        library.setLevel(level)
    return [Check("rehearsal", "ok", "the model takes a step, and can be sealed, opened and asked")]


def judge(report: DataReport) -> list[Check]:
    """Judges counts, balance, bad examples and duplicates, and passes on what loading warned of besides."""
    judged = [_counts(report), *(Check("data", "ok", note) for note in report.notes), _balance(report)]
    judged += [*_small_classes(report), _bad(report), *_duplicates(report)]
    others = [warning for warning in report.warnings if warning not in report.duplicates.warnings()]
    return judged + [Check("data", "warning", warning, OTHERS_FIX) for warning in others]


def _counts(report: DataReport) -> Check:
    splits = {split: sum(counts.get(split, 0) for counts in report.classes.values()) for split in SPLITS}
    sizes = ", ".join(f"{split} {count:,}" for split, count in splits.items())
    return Check("data", "ok", f"{report.location}: {counted(len(report.classes), 'class', 'classes')}, {sizes}")


def _balance(report: DataReport) -> Check:
    counts = {name: splits.get("train", 0) for name, splits in report.classes.items()}
    small, large = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    detail = f"{counts[small]:,} ({small}) to {counts[large]:,} ({large}) training examples of a class"
    if counts[large] > MAX_IMBALANCE * counts[small]:
        fix = "set optim.class_weights=balanced or optim.balanced_sampling=true, and judge by macro-F1"
        return Check("balance", "warning", detail, fix)
    return Check("balance", "ok", detail)


def _small_classes(report: DataReport) -> Iterator[Check]:
    for split, fix in FEW_FIX.items():
        small = [name for name, counts in report.classes.items() if counts.get(split, 0) < MIN_PER_CLASS]
        if small:
            detail = (
                f"fewer than {MIN_PER_CLASS} examples of {counted(len(small), 'class', 'classes')}: {_listed(small)}"
            )
            yield Check(f"{split} split", "warning", detail, fix)


def _bad(report: DataReport) -> Check:
    if not report.bad:
        return Check("bad examples", "ok", "none")
    detail = "\n  ".join([f"{len(report.bad):,} of {report.total:,} are skipped:", *first_bad(report.bad)])
    fix = f"mend or remove them; training lists the first {MAX_LISTED:,} in data_report.json"
    return Check("bad examples", "warning", detail, fix)


def _duplicates(report: DataReport) -> list[Check]:
    found = report.duplicates.findings()
    return [Check("duplicates", "warning", *one) for one in found] or [Check("duplicates", "ok", "none")]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
