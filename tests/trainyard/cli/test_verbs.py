"""The verbs that use an export: predict and evaluate with a format, a digest, or neither."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tables import ALL

from trainyard import cli
from trainyard.artifacts.export_record import FormatRow
from trainyard.artifacts.manifest import digest
from trainyard.inference.runtimes import open_runtime

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def export(make_export: MakeExport, row: Row, onnx_file: Path) -> Path:
    """With an ONNX file, and the same as an int8 one, which is no gain."""
    content = onnx_file.read_bytes()
    rows = row("onnx"), row("onnx-int8", "no_gain", reason="it is slow"), row("aoti", "skipped", reason="-")
    return make_export(*rows, files={"model.onnx": content, "model.int8.onnx": content})


@pytest.fixture
def image(bare_run: Path) -> str:
    return str(sorted((bare_run / "bundle" / "samples" / "golden").iterdir())[0])


def run(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", *map(str, words)])
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(("verb", "formats"), [("predict", ("auto", *ALL)), ("evaluate", ALL)])
def test_every_format_can_be_asked_for(verb: str, formats: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for format in formats:
        assert run(verb, "nowhere", "--format", format) == 2
        assert "nowhere is neither a run folder nor a bundle" in capsys.readouterr().err
    assert run(verb, "nowhere", "--format", "onnx-int4") == 2
    assert "onnx-int4" in capsys.readouterr().err


@pytest.mark.parametrize(("format", "answers"), [("auto", "onnx"), ("onnx-int8", "onnx-int8"), ("eager", "eager")])
def test_predict_answers_with_the_format(
    format: str, answers: str, bare_run: Path, export: Path, image: str, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "trainyard.inference.predictor")

    assert run("predict", bare_run, image, "--format", format, "--threads", 1, "--json") == 0

    assert caplog.messages[-1].startswith(f"{answers} answers")
    assert "label" in json.loads(capsys.readouterr().out)


def test_a_format_of_the_librarys_answers_without_the_project(
    bare_run: Path, export: Path, image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINYARD_PROJECT", "nowhere")

    assert run("predict", bare_run, image, "--format", "onnx", "--threads", 1) == 0
    capsys.readouterr()
    assert run("predict", bare_run, image, "--format", "eager") == 2
    fix = "run scripts/setup.sh, or set TRAINYARD_PROJECT"
    assert capsys.readouterr().err.splitlines()[-1] == f"trainyard: the project nowhere can't be imported: {fix}"


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_what_cannot_run_is_one_sentence_and_2(
    verb: str, bare_run: Path, export: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [image] if verb == "predict" else []

    assert run(verb, bare_run, *inputs, "--format", "aoti") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "trainyard: aoti was skipped when it was exported (-): choose another format"


def test_a_digest_can_be_expected_by_option_and_by_variable(
    bare_run: Path, export: Path, image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = digest(bare_run / "bundle"), digest(export)

    def codes(format: str, **expect: str) -> list[int]:
        option = [f"--expect={expect['option']}"] if "option" in expect else []
        return [run("predict", bare_run, image, f"--format={format}", *option),
                run("evaluate", bare_run, f"--format={format.replace('auto', 'eager')}", *option)]  # fmt: skip

    assert codes("auto", option=own) == codes("onnx", option=other) == [0, 0]
    assert codes("onnx", option=own) == codes("auto", option="x") == [2, 2]
    assert codes("auto", option="0" * 64) == [1, 1]
    monkeypatch.setenv("TRAINYARD_EXPECT", other)
    assert codes("auto") == codes("onnx") == [0, 0]
    monkeypatch.setenv("TRAINYARD_EXPECT", "0" * 64)
    assert codes("eager") == [1, 1]
    assert codes("eager", option=own) == [0, 0], "the option is nearer"
    assert "was expected" in capsys.readouterr().err


def test_evaluate_scores_the_format_on_the_same_data(
    bare_run: Path, export: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        "trainyard.inference.selection.open_runtime",
        lambda format, *rest: (opened.append(format), open_runtime(format, *rest))[1],
    )
    scores = {}
    for format in ("eager", "onnx", "onnx-int8"):
        assert run("evaluate", bare_run, "--format", format, "--json") == 0
        scores[format] = json.loads(capsys.readouterr().out)

    assert [(one.pop("format"), one.pop("export")) for one in scores.values()] == [
        ("eager", None), ("onnx", "one"), ("onnx-int8", "one")
    ]  # fmt: skip
    assert opened == ["onnx", "onnx-int8"]
    assert scores["onnx"]["loss"] == pytest.approx(scores["eager"]["loss"], abs=1e-5)
    for key in ("bundle", "accuracy", "confusion", "examples"):
        assert scores["onnx"][key] == scores["eager"][key]
    assert scores["onnx"] == scores["onnx-int8"], "it is the same file"


def test_a_format_is_scored_by_one_process(
    bare_run: Path, export: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NPROC", "2")
    assert run("evaluate", bare_run, "--format", "onnx") == 2
    assert "onnx is scored by one process: leave out NPROC" in capsys.readouterr().err

    monkeypatch.setenv("NPROC", "1")
    assert run("evaluate", bare_run, "--format", "onnx", "data.limit=20") == 0


def test_a_launched_job_gets_the_digest(bare_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.setattr("trainyard.training.launch.launch", lambda words, _: started.append(words) or 0)

    assert run("evaluate", bare_run, "data.limit=20", "--json", "--expect=abc") == 0
    assert started == [["evaluate", str(bare_run), "data.limit=20", "--json", "--expect=abc"]]
