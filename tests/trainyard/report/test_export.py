"""The table shows every format, what wasn't measured as such, and why a format didn't pass, in any width."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from PIL import Image

from trainyard.artifacts.export_record import BatchInvariance, ExportFacts, FormatName, FormatRow, Latency, Status
from trainyard.report.export import COLUMNS, export_figure, export_markdown, print_export
from trainyard.report.figures import save_png

REASON = "accuracy 0.8500 is below 99 % of eager's 0.9472 [all|scores] " + "and so it goes on " * 8


def row(
    name: FormatName, status: Status, accuracy: float, p50: float | None, megabytes: float, reason: str = ""
) -> FormatRow:
    return FormatRow(
        name=name,
        file=None if p50 is None else "file",
        size_mb=megabytes,
        accuracy=accuracy,
        accuracy_interval=(accuracy - 0.0189, accuracy + 0.0111),
        macro_f1=accuracy - 0.002,
        agreement=0.9944,
        max_abs_diff=0.000123,
        batch_invariance=BatchInvariance(neighbours=0, padding=0),
        latency_ms=Latency(p50=p50, p95=p50 * 1.25) if p50 else None,
        throughput=8000 / p50 if p50 else None,
        speedup=8.25 / p50 if p50 else None,
        status=status,
        reason=reason,
        made_with=["minmax, static: agreement 0.91", "entropy, static: passed"] if name == "onnx-int8" else ["passed"],
    )


FACTS = ExportFacts(
    schema_version=1,
    bundle="b" * 64,
    id="2026-11-24_18-00-00",
    created="2026-11-24T18:00:00+00:00",
    formats=[
        row("eager", "reference", 0.9472, 8.25, 1.1),
        row("torchscript", "passed", 0.9472, 6.91, 1.1),
        row("torchscript-int8", "refused", 0.85, None, 0.4, REASON),
        row("onnx", "passed", 0.9472, 1.74, 1.1),
        row("onnx-int8", "passed", 0.9444, 0.9312, 0.31),
        row("aoti", "batch_dependent", 0.9472, 6.76, 2.8, "a probability moves by 0.02 with its neighbours"),
        FormatRow(name="aoti-int8", status="skipped", reason="g++ isn't there: install g++"),
    ],
    recommended="onnx-int8",
    gate={"metric_share": 0.99, "allow_refused": False},
    data={"split": "test", "examples": 360, "location": "/home/ann/digits", "overrides": []},
    machine={
        "trainyard": "0.1", "python": "3.11.9", "cpu": "AMD <EPYC>", "cores": 2, "gpu": None, "threads": 2,
        "batch_size": 8, "flags": ["avx2", "avx512_vnni"], "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
    },
)  # fmt: skip


def printed(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_export(FACTS)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= columns for line in lines)
    return lines


def cells(lines: list[str], format: str) -> list[str]:
    [line] = [line for line in lines if re.match(rf"│ ..{format} ", line)]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_wide_terminal_shows_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(200, monkeypatch, capsys)

    assert [cell.strip() for cell in lines[1].strip("┃").split("┃")] == ["format", *(one.title for one in COLUMNS)]
    assert cells(lines, "onnx-int8") == [
        "* onnx-int8", "passed", "0.3", "0.9444", "0.925 to 0.956", "0.9424", "0.9944", "1.2e-04", "0.931", "1.16",
        "8,591", "8.86",
    ]  # fmt: skip
    assert cells(lines, "aoti-int8") == ["aoti-int8", "skipped", *["-"] * 10]
    assert cells(lines, "torchscript-int8")[-3:] == ["-", "-", "-"], "a refused format isn't timed"
    assert "* recommended. Times are of calls with 8 examples and 2 threads." in lines


def test_narrow_terminals_leave_out_what_matters_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(80, monkeypatch, capsys)

    titles = ["* onnx-int8", "passed", "0.3", "0.9444", "0.931", "8.86"]
    assert cells(lines, "onnx-int8") == titles
    assert cells(lines, "aoti") == ["aoti", "batch_dependent", "2.8", "0.9472", "6.76", "1.22"]
    assert not any("…" in line for line in lines), "nothing is cut"
    seen = [len(cells(printed(width, monkeypatch, capsys), "onnx")) for width in range(80, 160, 4)]
    assert seen == sorted(seen)
    assert seen[-1] > 10


def test_reasons_are_whole_and_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = " ".join(" ".join(printed(80, monkeypatch, capsys)).split())

    assert f"torchscript-int8 refused: {REASON.strip()}" in shown
    assert "aoti batch_dependent: a probability moves by 0.02 with its neighbours" in shown
    assert "aoti-int8 skipped: g++ isn't there: install g++" in shown
    assert "What was tried:" in shown
    assert "onnx-int8 minmax, static: agreement 0.91 onnx-int8 entropy, static: passed" in shown


def test_nothing_is_said_where_all_passed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_export(FACTS.model_copy(update={"formats": FACTS.formats[:2], "recommended": "eager"}))

    shown = capsys.readouterr().out
    assert "* eager" in shown
    assert "Why not" not in shown
    assert "tried" not in shown


OURS = "trainyard".replace("_", "\\_")
"""As Markdown writes it, whatever the project is called."""


def test_markdown_tells_what_the_figures_are_of() -> None:
    text = export_markdown(FACTS)

    for fact in (
        f"| bundle | `{'b' * 64}` |",
        "| scored on | split test, examples 360, location digits |",
        "| processor | AMD \\<EPYC\\>, 2 cores |",
        "| its flags | avx2 avx512\\_vnni |",
        "| threads | 2 |",
        "| examples of a call | 8 |",
        f"| versions | Python 3.11.9, {OURS} 0.1, torch 2.14.1, numpy 2.4.6 |",
    ):
        assert fact in text
    assert "/home" not in text
    assert "GPU" not in text


def test_markdown_has_every_format_and_reason() -> None:
    text = export_markdown(FACTS)
    table = [line for line in text.splitlines() if line.count(" | ") == len(COLUMNS)]

    assert len(table) == 1 + 7
    assert table[5].startswith("| **onnx-int8** (recommended) | passed | 0.3 | 0.9444 | 0.925 to 0.956 | 0.9424 |")
    assert table[7] == f"| aoti-int8 | skipped | {' | '.join(['-'] * 10)} |"
    assert "- torchscript-int8: refused: accuracy 0.8500 is below 99 % of eager's 0.9472 \\[all\\|scores\\] and" in text
    assert "- onnx-int8: entropy, static: passed" in text


def labels(figure: Figure) -> dict[str, Annotation]:
    return {text.get_text(): text for text in figure.axes[0].texts if isinstance(text, Annotation)}


def boxes(figure: Figure) -> list[Bbox]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    return [Text.get_window_extent(label, renderer) for label in labels(figure).values()]


def test_figure_names_what_is_shown_and_what_is_not(tmp_path: Path) -> None:
    figure = export_figure(FACTS)

    assert set(labels(figure)) == {
        "eager", "torchscript", "torchscript-int8, refused, not timed", "onnx", "onnx-int8", "aoti, batch_dependent",
    }  # fmt: skip
    assert labels(figure)["onnx"].xy == (1.74, 0.9472)
    assert figure.axes[0].get_title() == "recommended: onnx-int8\nnot shown: aoti-int8 (skipped)"
    save_png(figure, tmp_path / "export.png")
    with Image.open(tmp_path / "export.png") as image:
        assert image.size == (800, 500)


@pytest.mark.parametrize("latencies", [(8.25, 6.91, 1.74, 0.93, 6.76), (5, 5, 5, 5, 5), (1, 1.01, 1.02, 9, 9.1)])
def test_names_do_not_overlap(latencies: tuple[float, ...]) -> None:
    names: tuple[FormatName, ...] = ("eager", "torchscript", "onnx", "onnx-int8", "aoti-int8")
    formats = [row(name, "passed", 0.9472, p50, 1.0) for name, p50 in zip(names, latencies, strict=True)]
    figure = export_figure(FACTS.model_copy(update={"formats": [*formats, FACTS.formats[2]]}))

    found = boxes(figure)
    assert len(found) == 6
    assert not any(a.overlaps(b) for a, b in combinations(found, 2))
    area = figure.axes[0].bbox
    assert all(area.contains(*corner) for box in found for corner in (box.min, box.max))


def test_figure_of_eager_alone_and_of_nothing() -> None:
    eager = FACTS.formats[0].model_copy(update={"accuracy_interval": None, "size_mb": None, "accuracy": 1.0})

    assert list(labels(export_figure(FACTS.model_copy(update={"formats": [eager]})))) == ["eager"]
    assert not labels(export_figure(FACTS.model_copy(update={"formats": FACTS.formats[6:]})))


def test_needs_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert export_figure(FACTS).axes
