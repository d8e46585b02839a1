"""What was found in the data, for ``data_report.json`` and the model card."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainyard.base.errors import DataError
from trainyard.base.files import write_text
from trainyard.base.words import counted
from trainyard.config.data import AnyData
from trainyard.data.records import BadExample, Split

log = logging.getLogger(__name__)

MAX_LISTED = 1000
"""Bad examples listed in the report; all are counted."""
MAX_DUPLICATES_LISTED = 20
MAX_SHOWN = 10
"""Bad examples named on the terminal."""


@dataclass
class Pairs:
    """Examples that have something to do with an earlier one: how many, and the first, each behind the earlier one."""

    count: int = 0
    examples: list[list[str]] = field(default_factory=list)

    def add(self, earlier: str, later: str) -> None:
        """Notes where both are."""
        self.count += 1
        if len(self.examples) < MAX_DUPLICATES_LISTED:
            self.examples.append([earlier, later])


@dataclass(frozen=True)
class Duplicates:
    """Examples that are there more than once.

    Attributes:
        copies: Exact ones of training examples in evaluation splits (and of validation examples in the test split).
        conflicting: Exact copies with another label, in any split.
        near: Texts that are copies but for case, spaces, punctuation at the end or the form of letters; images that
            were saved again.
    """

    copies: Pairs = field(default_factory=Pairs)
    conflicting: Pairs = field(default_factory=Pairs)
    near: Pairs = field(default_factory=Pairs)

    @property
    def across_splits(self) -> int:
        """How many copies lie in another split."""
        return self.copies.count

    def findings(self) -> list[tuple[str, str]]:
        """What was found, and what to do about it: what a model has seen in training doesn't measure it."""
        kinds = (
            (self.copies, "an exact copy", "exact copies", "of an example in another split",
             "remove them from one of the splits"),
            (self.conflicting, "a copy", "copies", "of an example with another label", "correct the labels"),
            (self.near, "a near copy", "near copies", "of another: the same text or picture, written or saved anew",
             "keep one of each"),
        )  # fmt: skip
        return [
            (f"{counted(pairs.count, f'example is {one}', f'examples are {many}')} {of} "
             f"(the first: {pairs.examples[0][1]} of {pairs.examples[0][0]})", fix)
            for pairs, one, many, of, fix in kinds
            if pairs.count
        ]  # fmt: skip

    def warnings(self) -> list[str]:
        """The same as sentences."""
        return [f"{what}: {fix}" for what, fix in self.findings()]


@dataclass(frozen=True)
class DataReport:
    """Counts and complaints; ``to_dict`` is ``data_report.json``.

    Attributes:
        classes: Examples of each class, by split.
        total: Examples that were read, bad ones included.
        notes: How the data were read, where that had to be found out.
    """

    location: str
    fingerprint: str
    classes: dict[str, dict[Split, int]]
    total: int
    bad: tuple[BadExample, ...]
    duplicates: Duplicates
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

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
                "examples": self.duplicates.copies.examples,
                "conflicting": asdict(self.duplicates.conflicting),
                "near": asdict(self.duplicates.near),
            },
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def check_quota(bad: Sequence[BadExample], total: int, data: AnyData) -> None:
    """Lets bad examples pass while they are at most the share ``data.max_bad`` of ``total``.

    If they don't, all of them are listed in a CSV file in ``data.cache``: there is no run yet, with its report.

    Raises:
        DataError: there are more; says how many, the first ten, the key to raise, and where all are listed.
    """
    if len(bad) <= data.max_bad * total:
        return
    listing = Path(data.cache).expanduser() / "bad_examples.csv"
    listed = f" (all are listed in {listing})" if _list_bad(bad, listing) else ""
    raise DataError(
        f"{len(bad):,} of {total:,} examples {'is' if len(bad) == 1 else 'are'} bad, more than "
        f"data.max_bad={data.max_bad:g} allows: "
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


def log_findings(bad: Sequence[BadExample], warnings: Sequence[str], notes: Sequence[str] = ()) -> None:
    """Says in the log what the report will say in full."""
    for note in notes:
        log.info(note)
    if bad:
        log.warning("skipped %s, the first: %s (%s)", counted(len(bad), "bad example"), bad[0].where, bad[0].reason)
    for warning in warnings:
        log.warning(warning)
