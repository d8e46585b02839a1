"""From a config to a dataset that has passed all checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from trainyard.base.errors import DataError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.data.checks import Checked, check_items, find_duplicates, fingerprint
from trainyard.data.labels import as_known, check_labels, twin_warnings, with_whole_numbers
from trainyard.data.records import SPLITS, Dataset, Found, Records, Rows, Split
from trainyard.data.report import DataReport, check_quota, log_findings
from trainyard.data.sources import location, read_source
from trainyard.data.splits import check_splits, complete_splits, limit_rows


def load_dataset(data: ImagesConfig | TextsConfig, seed: int) -> Dataset:
    """Finds the examples, divides them, drops the bad ones, and checks what is left.

    Every process of a job comes to the same result; images are decoded by one per machine. What was found on the way
    (bad examples, copies) is in its report, for the caller to tell.

    Raises:
        UsageError: ``data.path`` or another key is wrong.
        DataError: the data can't train a classifier, or too much of it is bad.
    """
    seed = seed if data.split_seed is None else data.split_seed
    found = _read(data)
    found.warnings += check_labels(found.splits["train"].labels, data.label) if "train" in found.splits else []
    whole = complete_splits(found.splits, data, seed, found.warnings)
    classes = check_splits(whole, data)
    checked = _check({split: limit_rows(rows, data.limit, seed) for split, rows in whole.items()}, found, data)
    if data.limit is None:  # a few examples of each split needn't hold every class
        _check_lost(whole, checked, found)
        classes = check_splits({split: part.rows for split, part in checked.items()}, data)
    report = _report(found, checked, classes, data)
    records = {split: _records(part, classes) for split, part in checked.items()}
    return Dataset(records, classes, report.fingerprint, report.location, report)


def has_split(data: ImagesConfig | TextsConfig, split: Split) -> bool:
    """Whether the data comes divided, with this split among its parts."""
    return split in read_source(data).splits


def load_split(
    data: ImagesConfig | TextsConfig, classes: tuple[str, ...], split: Split = "test", seed: int = 0
) -> Records:
    """One split of data that may hold nothing else, for a classifier that exists.

    Args:
        classes: The classifier's; the labels are mapped to them.
        split: Which one, where the data has several; data with one split or none is taken whole.
        seed: For ``data.limit``.

    Raises:
        UsageError: ``data.path`` or another key is wrong.
        DataError: the split isn't there, has labels that aren't among the classes, or too much of it is bad.
    """
    found = _read(data)
    rows = _only(found, split, data)
    rows = replace(rows, labels=as_known(rows.labels, classes))
    if unknown := sorted(set(rows.labels) - set(classes)):
        raise DataError(
            f"{data.path} has labels that the classifier doesn't know: {_listed(unknown)}; it knows {_listed(classes)}"
        )
    checked = _check({split: limit_rows(rows, data.limit, seed)}, found, data)[split]
    log_findings([*found.bad, *checked.bad], [*found.warnings, *twin_warnings(Counter(rows.labels))], found.notes)
    return _records(checked, classes)


def _read(data: ImagesConfig | TextsConfig) -> Found:
    """What there is, its labels in one form."""
    found = read_source(data)
    check_quota(found.bad, found.total, data)
    return replace(found, splits=with_whole_numbers(found.splits))


def _only(found: Found, split: Split, data: ImagesConfig | TextsConfig) -> Rows:
    if split in found.splits:
        return found.splits[split]
    if len(found.splits) != 1:
        there = ", ".join(found.splits) or "; ".join(["no examples that can be used", *found.warnings])
        raise DataError(f"{data.path} has no {split} split, it has {there}: name the folder or file of one split")
    return next(iter(found.splits.values()))


def _check(splits: Mapping[Split, Rows], found: Found, data: ImagesConfig | TextsConfig) -> dict[Split, Checked]:
    checked = check_items(splits, data, found.warnings)
    bad = [example for part in checked.values() for example in part.bad]
    if data.limit is None:
        check_quota([*found.bad, *bad], found.total, data)
    else:  # the rows' own faults were counted over all rows, of which few are looked into
        check_quota(bad, sum(len(rows) for rows in splits.values()), data)
    for split, part in checked.items():
        if not len(part.rows):
            raise DataError(f"the {split} split of {data.path} has no example that can be used")
    return checked


def _check_lost(whole: Mapping[Split, Rows], checked: Mapping[Split, Checked], found: Found) -> None:
    """Says which classes are gone, since few bad examples may be all that a class has."""
    for split, rows in whole.items():
        if gone := sorted(set(rows.labels) - set(checked[split].rows.labels)):
            lost = f"no example of {_listed(gone)} in the {split} split can be used: mend them"
            if split != "train" and split in found.splits:
                raise DataError(f"{lost}, or take the class out of all splits")
            found.warnings.append(lost)


def _records(part: Checked, classes: Sequence[str]) -> Records:
    code_of = {name: code for code, name in enumerate(classes)}
    labels = np.array([code_of[label] for label in part.rows.labels], dtype=np.int64)
    return Records(part.rows.items, labels, part.rows.sources, part.rows.decoded, part.digests)


def _report(
    found: Found, checked: Mapping[Split, Checked], classes: Sequence[str], data: ImagesConfig | TextsConfig
) -> DataReport:
    counts = {split: Counter(part.rows.labels) for split, part in checked.items()}
    duplicates = find_duplicates(checked)
    everywhere = sum(counts.values(), Counter[str]())
    unmeasured = _unmeasured(counts, classes) if data.limit is None else []
    return DataReport(
        location=location(data.path),
        fingerprint=fingerprint(checked),
        classes={name: {split: counts[split][name] for split in SPLITS} for name in classes},
        total=found.total,
        bad=(*found.bad, *(example for part in checked.values() for example in part.bad)),
        duplicates=duplicates,
        warnings=(*found.warnings, *twin_warnings(everywhere), *unmeasured, *duplicates.warnings()),
        notes=tuple(found.notes),
    )


def _unmeasured(counts: Mapping[Split, Counter[str]], classes: Sequence[str]) -> list[str]:
    """A warning of the classes that are learnt and never measured: they don't count in the scores."""
    missing = [name for name in classes if not counts["test"][name]]
    if not missing:
        return []
    return [
        f"the test split has no example of {_listed(missing)}, so the scores say nothing about them; "
        "add some, or raise data.test_fraction where the split is held out"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (" and more" if len(names) > 20 else "")
