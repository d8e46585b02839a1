"""What was found in the data, for ``data_report.json`` and the model card."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainyard.base.errors import DataError
from trainyard.base.files import write_text
from trainyard.data.records import BadExample, Rows, Split

log = logging.getLogger(__name__)

MAX_LISTED = 1000
"""Bad examples listed in the report; all are counted."""
MAX_DUPLICATES_LISTED = 20
MAX_SHOWN = 10
"""Bad examples named on the terminal."""


@dataclass(frozen=True)
class Duplicates:
    """Exact copies of training examples in evaluation splits (and of validation examples in the test split).

    Attributes:
        across_splits: Examples of a later split whose content is in an earlier one.
        examples: The first of them, each with the place of its original.
    """

    across_splits: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DataReport:
    """Counts and complaints; ``to_dict`` is ``data_report.json``.

    Attributes:
        classes: Examples of each class, by split.
        total: Examples that were read, bad ones included.
    """

    location: str
    fingerprint: str
    classes: dict[str, dict[Split, int]]
    total: int
    bad: tuple[BadExample, ...]
    duplicates: Duplicates
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The report as JSON takes it; the list of bad examples ends after ``MAX_LISTED``."""
        splits: Counter[Split] = Counter()
        for counts in self.classes.values():
            splits.update(counts)
        return {
            "location": self.location,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            "splits": dict(splits),
            "bad": {
                "count": len(self.bad),
                "share": len(self.bad) / max(1, self.total),
                "items": [{"where": bad.where, "reason": bad.reason} for bad in self.bad[:MAX_LISTED]],
            },
            "duplicates": {
                "across_splits": self.duplicates.across_splits,
                "examples": [list(pair) for pair in self.duplicates.examples],
            },
            "warnings": list(self.warnings),
        }


def check_quota(bad: Sequence[BadExample], total: int, max_bad: float, listing: Path | None = None) -> None:
    """Lets bad examples pass while they are at most the share ``max_bad`` of ``total``.

    Args:
        listing: A CSV file in which all of them are listed if they don't pass: there is no run yet, with its report.

    Raises:
        DataError: there are more; says how many, the first ten, the key to raise, and where all are listed.
    """
    if len(bad) <= max_bad * total:
        return
    listed = f" (all are listed in {listing})" if listing is not None and _list_bad(bad, listing) else ""
    raise DataError(
        f"{len(bad):,} of {total:,} examples are bad, more than data.max_bad={max_bad:g} allows: "
        f"{'; '.join(first_bad(bad))}; mend them, or raise data.max_bad{listed}"
    )


def first_bad(bad: Sequence[BadExample]) -> list[str]:
    """The first ten by file and line, each with its reason, and how many more there are."""
    lines = [f"{one.where} ({one.reason})" for one in sorted(bad, key=_by_place)[:MAX_SHOWN]]
    more = [f"and {len(bad) - MAX_SHOWN:,} more"] if len(bad) > MAX_SHOWN else []
    return lines + more


def _by_place(example: BadExample) -> list[tuple[int, str]]:
    """Sorts line 9 before line 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", example.where)]


def _list_bad(bad: Sequence[BadExample], path: Path) -> bool:
    """Writes ``where,reason``; ``False`` if that can't be done, as the error to tell is another one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("where", "reason"), *((one.where, one.reason) for one in sorted(bad, key=_by_place))])
    try:
        write_text(path, text.getvalue())
    except OSError:
        return False
    return True


def find_duplicates(splits: Mapping[Split, Rows], digests: Mapping[Split, Sequence[bytes]]) -> Duplicates:
    """Finds examples of a split whose content lies in a split before it.

    Args:
        splits: In the order train, val, test.
        digests: Hash of each example's content.
    """
    seen: dict[bytes, str] = {}
    count, examples = 0, []
    for split, rows in splits.items():
        new: dict[bytes, str] = {}
        for digest, source in zip(digests[split], rows.sources, strict=True):
            if digest in seen:
                count += 1
                examples.append((seen[digest], source))
            else:
                new[digest] = source
        seen |= new
    return Duplicates(count, tuple(examples[:MAX_DUPLICATES_LISTED]))


def duplicate_warning(duplicates: Duplicates) -> list[str]:
    """A warning, if there are any: what a model has seen in training doesn't measure it."""
    if not duplicates.across_splits:
        return []
    original, copy = duplicates.examples[0]
    return [
        f"{duplicates.across_splits:,} examples are exact copies of examples in another split "
        f"(the first: {copy} of {original}), so the measured quality is too good"
    ]


def log_findings(bad: Sequence[BadExample], warnings: Sequence[str]) -> None:
    """Says in the log what the report will say in full."""
    if bad:
        log.warning("skipped %s bad examples, the first: %s (%s)", f"{len(bad):,}", bad[0].where, bad[0].reason)
    for warning in warnings:
        log.warning(warning)
