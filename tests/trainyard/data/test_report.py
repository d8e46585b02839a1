"""Bad examples that are too many: where they are, by place, and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.base.errors import DataError
from trainyard.config.data import TextsConfig
from trainyard.data.records import BadExample
from trainyard.data.report import check_quota, first_bad

BAD = [BadExample(f"a.csv:{line}", "no label") for line in range(12, 0, -1)]


def quota(max_bad: float, cache: Path) -> TextsConfig:
    return TextsConfig(kind="texts", path="a.csv", max_bad=max_bad, cache=str(cache))


def test_the_quota_lets_its_share_pass(tmp_path: Path) -> None:
    check_quota(BAD, 120, quota(0.1, tmp_path))
    with pytest.raises(DataError, match=r"12 of 119 examples are bad, .*data.max_bad=0.1 .* or raise data.max_bad"):
        check_quota(BAD, 119, quota(0.1, tmp_path))


def test_the_first_ten_are_named_in_the_order_of_their_lines(tmp_path: Path) -> None:
    shown = [f"a.csv:{line} (no label)" for line in range(1, 11)]
    assert first_bad(BAD) == [*shown, "and 2 more"]
    assert first_bad(BAD[2:]) == shown
    with pytest.raises(DataError, match=r"allows: a.csv:1 \(no label\); a.csv:2 .*; a.csv:10 .*; and 2 more; mend"):
        check_quota(BAD, 12, quota(0.5, tmp_path))


def test_places_are_in_the_order_of_their_numbers() -> None:
    names = ["train/b.png", "10.png", "9.png"]
    assert first_bad([BadExample(name, "x") for name in names]) == ["9.png (x)", "10.png (x)", "train/b.png (x)"]


def test_all_are_listed_in_a_file(tmp_path: Path) -> None:
    listing = tmp_path / "cache" / "bad_examples.csv"

    with pytest.raises(DataError, match="all are listed in .*bad_examples.csv"):
        check_quota([*BAD, BadExample("caf\udce9, 2.png", "damaged")], 20, quota(0.1, tmp_path / "cache"))

    lines = listing.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["where,reason", "a.csv:1,no label"]
    assert lines[-1] == '"caf\\udce9, 2.png",damaged'
    assert len(lines) == 14


def test_a_list_that_cannot_be_written_is_not_promised(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()

    with pytest.raises(DataError, match="12 of 20") as error:
        check_quota(BAD, 20, quota(0.1, tmp_path / "cache"))
    assert "listed in" not in str(error.value)
