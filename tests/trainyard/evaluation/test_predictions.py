"""What a run keeps of its answers comes back as it was, and an example is known again wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainyard.artifacts.run import PREDICTIONS
from trainyard.base.errors import UsageError
from trainyard.config.data import TextsConfig
from trainyard.data.load import load_dataset
from trainyard.evaluation.predictions import Predictions, example_ids, read_predictions, write_predictions


def predictions(trait: str, shown: list[str | bytes | None]) -> Predictions:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    traits = np.array([1, 2, np.nan], np.float32)
    labels = np.array([0, 0, 1])
    return Predictions(
        ("a\n,b", "ü"), ["1", "2", "3"], ["t:1", "t:2", "\udcff"], labels, probabilities, trait, traits, shown
    )


@pytest.mark.parametrize(
    ("trait", "shown"), [("characters", ["<b>", None, "שלום"]), ("brightness", [b"\x89PNG", None, None])]
)
def test_what_is_written_is_read(trait: str, shown: list[str | bytes | None], tmp_path: Path) -> None:
    write_predictions(tmp_path / PREDICTIONS, predictions(trait, shown))
    found = read_predictions(tmp_path)
    assert (found.classes, found.ids, found.shown, found.trait) == (("a\n,b", "ü"), ["1", "2", "3"], shown, trait)
    assert found.sources == ["t:1", "t:2", "?"], "a name that isn't Unicode is shown as well as it can be"
    assert found.predicted.tolist() == [0, 1, 0]
    assert found.right.tolist() == [True, False, False]
    assert np.isnan(found.traits[2])
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8, 0.6])


def test_a_run_without_them_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train again"):
        read_predictions(tmp_path)


def test_an_example_keeps_its_id_in_another_file_and_place(tmp_path: Path) -> None:
    rows = [("one", "a"), ("two", "b"), ("one", "a"), ("three", "b")]

    def ids(name: str, order: list[int]) -> dict[str, list[str]]:
        train = "".join(f"train {word},{label},train\n" for word, label in rows)
        train += "".join(f"val {word},{label},val\n" for word, label in rows)
        test = "".join(f"{rows[i][0]},{rows[i][1]},test\n" for i in order)
        (tmp_path / name).write_text("text,label,split\n" + train + test)
        data = TextsConfig(kind="texts", path=str(tmp_path / name), cache=str(tmp_path / "cache"))
        records = load_dataset(data, 0).splits["test"]
        return {
            text: [id for id, item in zip(example_ids(records), records.items, strict=True) if item == text]
            for text in records.items
        }

    first = ids("first.csv", [0, 1, 2, 3])
    assert first == ids("second.csv", [3, 2, 1, 0])
    assert len({id for some in first.values() for id in some}) == 4, "also the second of two equal ones has one"
