"""The report of a run: one valid file, of any data, small, in which nothing of the data runs and cells open by key."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser_page
from finished_runs import PICTURE_BYTES, finished_run, pictures
from PIL import Image
from tinyhtml5.parser import HTMLParser

from trainyard.artifacts.run import METRICS
from trainyard.base.errors import UsageError
from trainyard.base.files import write_json
from trainyard.base.project import Project
from trainyard.evaluation.shown import MAX_BYTES
from trainyard.report import filling
from trainyard.report.html import write_report

CHROMIUM = shutil.which("chromium") or ""
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "report_picture.py"
MARKUP = [
    "<script>document.title='run'</script>",
    "<img src=x onerror=alert(1)>",
    "]]> --> </style></script>",
    "{{ 1 + 1 }}",
]
RIGHT_TO_LEFT = ["שלום עולם", "مرحبا بالعالم", "a\u202eb"]


def drawn(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def check_valid(report: str) -> None:
    """As a browser parses it, without an error in its syntax."""
    parser = HTMLParser()
    parser.parse(report)
    assert parser.errors == []
    ids = re.findall(r'\bid="([^"]+)"', report)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', report)) <= set(ids)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shown = (MARKUP + RIGHT_TO_LEFT + ["plain"]) * 12
    return finished_run(tmp_path_factory.mktemp("texts"), ("<b>bold", "a&b", 'quote"d', "עברית"), shown)


def test_it_says_first_how_good_the_model_is_against_a_simple_one(texts: Path) -> None:
    verdict = drawn(texts).partition("<main>")[0]
    words = " ".join(re.sub(r"<[^>]+>", " ", verdict.partition("<body>")[2]).split())
    assert "of 96 test examples (95&nbsp;%:" in words
    assert "It is better than a simple model, a simple model (50.0%): +50.0 points" in words
    assert "The gate wants +1.0: passed" in words
    assert "/home/ann" not in drawn(texts), "where a folder lies on the machine is nobody's business"


@pytest.mark.parametrize("count", [1, 3])
def test_it_is_drawn_of_a_few_examples(count: int, tmp_path: Path) -> None:
    check_valid(drawn(finished_run(tmp_path / "some", ("a", "b"), ["text"] * count)))
    all_right = drawn(finished_run(tmp_path / "right", ("a", "b"), ["text"] * count, share_right=1))
    assert ("The one answer is right" if count == 1 else f"All {count} answers are right") in all_right
    check_valid(all_right)


def test_it_is_valid_whatever_texts_and_classes_hold(texts: Path) -> None:
    report = drawn(texts)
    check_valid(report)
    assert report.count("<script") == 1
    assert "onerror=alert(1)&gt;" in report


def test_of_a_hundred_classes_and_as_many_pictures_as_there_may_be_it_is_small(tmp_path: Path) -> None:
    run = finished_run(
        tmp_path, [f"class {number} of many" for number in range(100)], pictures(MAX_BYTES // PICTURE_BYTES), 0.5
    )
    report = write_report(run)
    assert report.stat().st_size <= 5_000_000
    check_valid(report.read_text(encoding="utf-8"))


def test_more_classes_than_a_screen_holds_have_no_matrix(tmp_path: Path) -> None:
    report = drawn(finished_run(tmp_path, [f"c{number}" for number in range(150)], ["text"] * 300))
    assert 'class="matrix"' not in report
    listed = report.partition('<ol class="confusions">')[2].partition("</ol>")[0]
    assert listed.count("taken for") > 40, "the most confused pairs stand in its place"
    check_valid(report)


def test_without_samples_there_are_numbers_alone(tmp_path: Path) -> None:
    report = drawn(finished_run(tmp_path, ("a", "b"), [None] * 50))
    assert "blockquote" not in report.partition("<body>")[2]
    assert "#cell-" not in report.partition("<script>")[0]
    assert "report.samples=false" in report
    check_valid(report)


@pytest.mark.parametrize(
    ("threshold", "accuracy", "said"),
    [
        (0.9, 0.985, "Answers from 0.9000 on are certain: 50.0% of all, of which 98.5% are right (wanted: 98.0%)."),
        (0.9, None, "Answers from 0.9000 on are certain: 50.0% of all (wanted: 98.0%)."),
        (None, None, "No answer is sure enough for 98.0% to be right: all are uncertain."),
    ],
)
def test_it_says_how_many_answers_are_certain(
    threshold: float | None, accuracy: float | None, said: str, tmp_path: Path
) -> None:
    run = finished_run(tmp_path, ("a", "b"), ["text"] * 20)
    metrics = json.loads((run / METRICS).read_text())
    test = {"coverage": 0.5, "accuracy": accuracy}
    metrics["certain"] = {"target_accuracy": 0.98, "threshold": threshold, "test": test}
    write_json(run / METRICS, metrics)
    assert f"<p>{said}</p>" in drawn(run)


def test_the_same_run_gives_the_same_bytes(texts: Path) -> None:
    assert drawn(texts) == drawn(texts)


def test_a_project_adds_to_a_block_and_a_mistake_costs_nothing(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = drawn(texts)
    monkeypatch.setattr(filling, "find_project", lambda: Project("trainyard", templates=str(tmp_path)))
    own = '{% extends "trainyard/report.html.j2" %}\n{% block more %}<p>Ask {{ name }}.</p>{% endblock %}\n'
    (tmp_path / "report.html.j2").write_text(own)
    assert "<p>Ask made_up.</p>" in drawn(texts)
    (tmp_path / "report.html.j2").write_text(own.replace("name", "nobody"))
    assert drawn(texts) == plain
    assert "the report's template has a mistake" in caplog.text


def test_a_run_of_an_earlier_release_is_told_of(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "bundle", tmp_path / "run" / "bundle")
    with pytest.raises(UsageError, match="train again"):
        write_report(tmp_path / "run")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with browser_page(CHROMIUM) as page:
        yield page


@pytest.mark.slow
def test_in_a_browser_cells_open_by_key_and_nothing_of_the_data_runs(texts: Path, page: Page) -> None:
    page.open(write_report(texts))
    for _ in range(40):
        page.press("Tab")
        if page.evaluate("document.activeElement.closest('.matrix') !== null"):
            break
    first = page.evaluate("document.activeElement.hash")
    page.press("ArrowRight")
    second = page.evaluate("document.activeElement.hash")
    assert first.startswith("#cell-0-")
    assert second.startswith("#cell-0-")
    assert first != second
    page.press("Enter")
    assert (
        page.evaluate("document.querySelector('dialog').open && document.querySelectorAll('dialog figure').length") > 0
    )
    page.press("Escape")
    assert not page.evaluate("document.querySelector('dialog').open")
    assert page.evaluate("document.activeElement.hash") == second, "where it was"
    page.press("Tab")
    assert page.evaluate("document.activeElement.closest('.matrix') === null"), "one stop for the whole matrix"
    assert page.evaluate("document.title") == "made_up: report of a run"
    assert page.evaluate("getComputedStyle([...document.querySelectorAll('blockquote')].find(one => "
                         "one.textContent.startsWith('שלום'))).direction") == "rtl"  # fmt: skip
    assert page.complaints == []


@pytest.mark.slow
def test_what_the_data_would_run_is_stopped_twice(texts: Path, tmp_path: Path, page: Page) -> None:
    hostile = drawn(texts).replace("<main>", "<main><script>document.title='run'</script><img src=x onerror=alert(1)>")
    (tmp_path / "hostile.html").write_text(hostile)
    page.open(tmp_path / "hostile.html")
    assert page.evaluate("document.title") == "made_up: report of a run"
    assert any("Content Security Policy" in one for one in page.complaints)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "media", "scheme"), [(360, "screen", "light"), (1200, "screen", "dark"), (700, "print", "dark")]
)
def test_it_is_readable_on_a_telephone_in_the_dark_and_on_paper(
    width: int, media: str, scheme: str, tmp_path: Path, page: Page
) -> None:
    run = finished_run(tmp_path, [f"a rather long name of class {number}" for number in range(12)], pictures(40))
    page.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(write_report(run), width)
    if media == "screen":
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert dark == (media == "screen" and scheme == "dark"), "paper is white"
    assert page.evaluate(CONTRAST) >= 4.5, "WCAG 2.2, AA"
    assert page.evaluate(
        "[...document.images].every(one => one.alt && (one.loading == 'lazy' || one.naturalWidth > 0))"
    )
    assert page.complaints == []


CONTRAST = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255);
    const [r, g, b] = parts.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const words = document.querySelectorAll("h1, h2, p, li, th, td, a, small, dt, dd, caption, summary, figcaption");
  return Math.min(...[...words].map((one) => light(getComputedStyle(one).color)).map((one) =>
    Math.max(one, ground) / Math.min(one, ground)));
})()
"""
"""The least contrast of text with the page."""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")
def test_the_picture_for_a_readme_is_small(texts: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(texts), str(tmp_path / "report.png")], check=True)
    with Image.open(tmp_path / "report.png") as picture:
        assert len(picture.getcolors() or []) > 10, "more than an empty page"
    assert (tmp_path / "report.png").stat().st_size < 200_000
