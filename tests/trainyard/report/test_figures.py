"""The confusion matrix is drawn for any number of classes and any names."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from trainyard.heads.scores import ClassScores, Scores
from trainyard.report.figures import confusion_matrix, save_png


def scores_of(confusion: list[list[int]]) -> Scores:
    per_class = {f"class {i}": ClassScores(0.5, 0.5, 0.5, sum(row)) for i, row in enumerate(confusion)}
    return Scores(0.5, 0.5, 1.0, 0.1, sum(map(sum, confusion)), per_class, confusion)


def draw(classes: int) -> Figure:
    confusion = (7 * np.eye(classes, dtype=int) + np.eye(classes, k=1, dtype=int)).tolist()
    return confusion_matrix(scores_of(confusion), [f"class {i}" for i in range(classes)])


def cell_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("classes", [2, 60, 1000])
def test_png_of_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    save_png(draw(classes), tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert 200 < image.width < 2000
        assert 200 < image.height < 2000
        assert len(image.getcolors(1 << 24) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.png"]


def test_cells_bear_counts_row_by_row() -> None:
    assert cell_texts(confusion_matrix(scores_of([[3, 1], [0, 2]]), ["a", "b"])) == ["3", "1", "0", "2"]


def test_colours_are_shares_of_the_true_class() -> None:
    figure = confusion_matrix(scores_of([[3, 1], [0, 0]]), ["a", "b"])
    assert figure.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_many_classes_are_not_numbered_and_very_many_not_named() -> None:
    assert len(cell_texts(draw(25))) == 625
    assert cell_texts(draw(26)) == []
    assert draw(60).axes[0].get_yticklabels()[59].get_text() == "class 59"
    assert not any("class" in label.get_text() for label in draw(61).axes[0].get_yticklabels())


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["under $5 or over $9", "{x}^_\\alpha", "x" * 80]
    figure = confusion_matrix(scores_of([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), names)
    save_png(figure, tmp_path / "matrix.png")
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[:2] == names[:2]
    assert shown[2] == "x" * 23 + "…"


def test_names_in_a_script_that_the_font_lacks(tmp_path: Path) -> None:
    save_png(confusion_matrix(scores_of([[1, 0], [0, 1]]), ["猫", "犬"]), tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").is_file()


def test_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_png(draw(5), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_needs_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert draw(3).axes
