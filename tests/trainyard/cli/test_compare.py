"""Runs and formats side by side: what is claimed, what is refused, and the page; and the list of runs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy.train import Config, train

from trainyard import cli
from trainyard.artifacts.run import PREDICTIONS
from trainyard.evaluation.predictions import read_predictions, write_predictions

pytestmark = pytest.mark.usefixtures("restored")


def run(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", *map(str, words)])
        cli.main()
    return int(end.value.code or 0)


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, dict[str, object]]:
    """The difference of the second model from the first, and both."""
    capsys.readouterr()
    assert run("compare", *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    first, second = told["models"]
    assert first["over_first"] is None
    return {**second["over_first"], "export": second["export"], "config": told["config"]}


@pytest.fixture(scope="module")
def other_seed(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``image_run``, of another seed and on the same splits."""
    folder = tmp_path_factory.mktemp("seed")
    data = {"kind": "images", "path": "embedded:digits", "image_size": 8, "limit": 600, "split_seed": 42}
    config = {
        "name": "model",
        "seed": 7,
        "out": folder / "runs",
        "data": {**data, "cache": str(image_run.parents[2] / "cache")},
        "model": {"kind": "cnn"},
        "optim": {"lr": 0.1},
        "trainer": {"max_epochs": 6, "devices": "cpu", "threads": 1, "loggers": []},
    }
    return train(Config.model_validate(config))


@pytest.fixture
def broken_run(image_run: Path, tmp_path: Path) -> Path:
    """``image_run`` without a class: what would be called a 4 is called something else."""
    run = tmp_path / "<i>broken" / "run"
    shutil.copytree(image_run, run)
    kept = read_predictions(run)
    probabilities = kept.probabilities.copy()
    probabilities[:, kept.classes.index("4")] = 0
    write_predictions(run / PREDICTIONS, replace(kept, probabilities=probabilities))
    return run


def test_of_two_seeds_no_difference_is_claimed(
    image_run: Path, other_seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, image_run, other_seed, "--gate")
    assert found["verdict"] == "not distinguishable from"
    assert found["complaints"] == []
    assert 0.8 < float(str(found["same_answers"])) < 1
    assert found["config"]["seed"] == [42, 7]
    assert found["config"]["data.split_seed"] == [None, 42]


def test_a_broken_class_is_named_and_refused(
    image_run: Path, broken_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run("compare", image_run, broken_run, "--html", page) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "B is worse than A" in printed
    assert "Recall changed: 4 " in printed
    assert run("compare", image_run, broken_run, "--gate") == 3
    refused = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 2)[2].split(" is ")[0] for line in refused] == ["its accuracy", "its recall of 4"]
    assert run("compare", broken_run, image_run, "--gate") == 0

    text = page.read_text()
    assert "B is worse than A" in text
    assert "&lt;i&gt;broken" in text
    assert "<i>" not in text, "names may hold markup"
    assert is_well_formed(text)
    assert "src=" not in text, "it needs no network"


def test_formats_of_a_run_are_asked_and_compared_with_the_model_as_it_was_trained(
    exported_images: Path, image_run: Path, other_seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy of the bundle has kept no answers: it is asked for them, as a run of an earlier release is."""
    found = compared(capsys, exported_images, "--format", "onnx", "--gate")
    assert (found["same_answers"], found["p_value"]) == (1, 1)
    assert found["export"]["name"] == "onnx"
    assert compared(capsys, image_run, exported_images)["same_answers"] == 1
    assert compared(capsys, other_seed, "--format", "eager")["same_answers"] == 1, "its splits are known again"


def test_what_cannot_be_compared_is_one_sentence_and_2(
    image_run: Path, text_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, reason in [
        ([image_run], "give 2 to 26 runs to compare, or one and --format FORMAT of it"),
        ([image_run, text_run], "were tested on other data: 0 examples are in both"),
        ([image_run, tmp_path], "is neither a run folder nor a bundle"),
        ([image_run, "--format", "onnx"], "onnx isn't there, as nothing was exported"),
        ([image_run, image_run, "--html", tmp_path], "is a folder: name"),
    ]:
        assert run("compare", *words) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_runs_are_listed_with_what_they_reached(
    image_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(image_run, runs / "one" / "2026", ignore=shutil.ignore_patterns("checkpoints"))
    (runs / "one" / "latest").symlink_to("2026")
    (runs / "two" / "2027").mkdir(parents=True)
    shutil.copyfile(image_run / "config.yaml", runs / "two" / "2027" / "config.yaml")

    assert run("runs", runs, "--json") == 0
    finished, unfinished = json.loads(capsys.readouterr().out)
    scores = json.loads((image_run / "metrics.json").read_text())
    assert finished["run"] == str(runs / "one" / "2026")
    assert finished["accuracy"] == scores["test"]["accuracy"]
    assert finished["gain"] == scores["baseline"]["gain"]
    assert (unfinished["accuracy"], unfinished["recommended"]) == (None, None)
    assert run("runs", runs) == 0
    assert "unfinished" in capsys.readouterr().out
    assert run("runs", tmp_path / "nowhere") == 2
    assert "there are no runs in" in capsys.readouterr().err


def is_well_formed(text: str) -> bool:
    """Whether every element is closed in its turn."""
    opened: list[str] = []
    balanced = True

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            nonlocal balanced
            balanced = balanced and bool(opened) and opened.pop() == tag

    Parser().feed(text)
    return balanced and not opened
