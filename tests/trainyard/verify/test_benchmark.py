"""A benchmark times what can run, says what it left out, and refuses what makes no sense before the long work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import ExportFacts, FormatRow, Opened, open_trusted
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.cpu import Cpu
from trainyard.base.errors import BundleError, TrainyardError, UsageError
from trainyard.formats.making import onnx
from trainyard.inference import selection
from trainyard.preprocess.text import TextPreprocessor
from trainyard.report.benchmark import (
    Benchmark,
    Cell,
    Percentiles,
    benchmark_figure,
    benchmark_markdown,
    print_benchmark,
)
from trainyard.verify import benchmark
from trainyard.verify.benchmark import (
    Plan,
    check_plan,
    choose_folder,
    choose_formats,
    make_items,
    parse_numbers,
    run_benchmark,
)
from trainyard.verify.source import load_source
from trainyard.verify.timing import Timing

ROWS = [
    FormatRow(name="eager", status="reference"),
    FormatRow(name="torchscript", file="model.torchscript.pt", status="passed"),
    FormatRow(name="onnx", file="model.onnx", status="passed"),
    FormatRow(name="onnx-int8", file="model.int8.onnx", status="refused", reason="accuracy 0.1"),
    FormatRow(name="aoti", file="model.pt2", status="passed", needs=["avx2", "amx_int8"]),
    FormatRow(name="aoti-int8", status="skipped", reason="g++ isn't there"),
]
PLAN = Plan(formats=None, batch_sizes=(1, 3), threads=(1,), length=None, seconds=0.1)


@pytest.fixture(scope="module")
def run_folder(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an export: ONNX that works, TorchScript that can't be loaded, and formats that mustn't be."""
    run = tmp_path_factory.mktemp("exported")
    shutil.copytree(digits_run / "bundle", run / "bundle")
    bundle = Bundle.open(run)
    folder = run / "exports" / "one"
    folder.mkdir(parents=True)
    onnx.make(load_source(bundle, [sample.item for sample in calibration_samples(bundle.path)]), folder / "model.onnx")
    for name in ("model.torchscript.pt", "model.int8.onnx", "model.pt2"):
        (folder / name).write_text("damaged")
    facts = ExportFacts(
        schema_version=1, bundle=bundle.digest, id="one", created="today", formats=ROWS, recommended="onnx", gate={},
        data={}, machine={},
    )  # fmt: skip
    (folder / "export.json").write_text(facts.model_dump_json())
    write_manifest(folder)
    (run / "exports" / "latest").symlink_to("one")
    return run


@pytest.fixture
def opened(run_folder: Path) -> Opened:
    return open_trusted(run_folder)


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (benchmark, selection):
        monkeypatch.setattr(module, "this_cpu", lambda: Cpu("a processor", ("avx2",), 2))


def plan(**changes: object) -> Plan:
    return Plan(**{**vars(PLAN), **changes})  # type: ignore[arg-type]


def untimed(calls: Mapping[str, Callable[[], object]], *, seconds: float) -> dict[str, Timing]:
    assert seconds == PLAN.seconds
    for call in calls.values():
        assert np.asarray(call()).ndim == 2
    return {name: Timing((0.004 / (1 + i),) * 5) for i, name in enumerate(calls)}


def test_times_what_can_run_and_says_what_cannot(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "time_in_turns", untimed)

    measured = run_benchmark(PLAN, opened)

    cells = [(cell.format, cell.batch_size, cell.shape, cell.calls) for cell in measured.cells]
    assert cells == [
        ("eager", 1, [1, 3, 8, 8], 5), ("onnx", 1, [1, 3, 8, 8], 5),
        ("eager", 3, [3, 3, 8, 8], 5), ("onnx", 3, [3, 3, 8, 8], 5),
    ]  # fmt: skip
    last = measured.cells[-1]
    assert (last.throughput, last.speedup, last.latency_ms.p99, last.spread) == (1500, 2, 2, 0)
    assert measured.left_out.pop("torchscript").startswith("it can't run here: ")
    assert measured.left_out == {
        "onnx-int8": "it was refused when it was exported (accuracy 0.1)",
        "aoti": "it needs a processor with amx_int8",
        "aoti-int8": "it was skipped when it was exported (g++ isn't there)",
    }
    assert (measured.bundle, measured.export) == (opened.bundle.digest, "one")
    assert measured.machine["flags"] == ["avx2"]
    assert "onnxruntime" in measured.machine["packages"]  # type: ignore[operator]


def test_each_thread_count_holds_for_its_cells_alone(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before, seen, asked = torch.get_num_threads(), [], []

    def look(calls: Mapping[str, Callable[[], object]], *, seconds: float) -> dict[str, Timing]:
        seen.append(torch.get_num_threads())
        return {name: Timing((1.0,)) for name in calls}

    def opening(*words: object) -> object:
        asked.append((words[0], words[3], words[4]))
        return original(*words)  # type: ignore[arg-type]

    original = benchmark.open_runtime
    monkeypatch.setattr(benchmark, "open_runtime", opening)
    monkeypatch.setattr(benchmark, "time_in_turns", look)
    measured = run_benchmark(plan(threads=(2, 1), formats=("onnx",), batch_sizes=(1,)), opened)

    assert seen == [2, 1]
    assert asked == [("eager", "cpu", 2), ("onnx", "cpu", 2), ("eager", "cpu", 1), ("onnx", "cpu", 1)]
    assert [(cell.format, cell.threads) for cell in measured.cells] == [
        ("eager", 2), ("onnx", 2), ("eager", 1), ("onnx", 1),
    ]  # fmt: skip
    assert measured.left_out == {}
    assert torch.get_num_threads() == before


def test_eager_that_fails_is_not_left_out(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BundleError("the weights don't fit")

    monkeypatch.setattr(benchmark, "open_runtime", fail)
    with pytest.raises(BundleError, match="the weights don't fit"):
        run_benchmark(PLAN, opened)


def test_missing_packages_are_said(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "find_spec", lambda name: None if name == "onnxruntime" else object())

    assert choose_formats(plan(formats=("onnx", "torchscript")), opened.export) == (
        ["eager", "torchscript"],
        {"onnx": "it needs the package onnxruntime"},
    )


def test_without_an_export_there_is_eager_alone(opened: Opened) -> None:
    assert choose_formats(PLAN, None) == (["eager"], {})
    check_plan(plan(formats=("eager",)), Opened(opened.bundle, None))
    with pytest.raises(UsageError, match="onnx isn't exported; make it: trainyard export "):
        check_plan(plan(formats=("onnx",)), Opened(opened.bundle, None))
    with pytest.raises(UsageError, match="torchscript-int8 isn't exported"):
        check_plan(plan(formats=("onnx", "torchscript-int8")), opened)


@pytest.mark.parametrize("words", ["0", "1,,2", "", "-1", "1.5", "two", "1 2", "²"])
def test_numbers_are_whole_and_above_0(words: str) -> None:
    with pytest.raises(UsageError, match=r"--threads: '.*' isn't a whole number above 0; write for example --threads="):
        parse_numbers("--threads", words)


def test_numbers_keep_their_order_and_come_once() -> None:
    assert parse_numbers("--threads", "8, 1,8,32") == (8, 1, 32)


def test_more_threads_than_cores_is_a_warning(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    check_plan(plan(threads=(1, 2)), opened)
    assert not caplog.records
    check_plan(plan(threads=(1, 3)), opened)
    assert "3 are more than the 2 cores" in caplog.text


def text_preprocessor(segments: bool = False) -> TextPreprocessor:
    return TextPreprocessor(
        Tokenizer(WordLevel({"a": 0, "b": 1, "[UNK]": 2}, "[UNK]")), max_length=16, segments=segments
    )


def with_texts(bundle: Bundle, path: Path, preprocessor: TextPreprocessor) -> Bundle:
    changed = Bundle(path, bundle.digest, bundle.facts)
    vars(changed)["preprocessor"] = preprocessor
    return changed


def test_length_is_of_texts_and_within_the_model(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this model takes images: leave it out"):
        check_plan(plan(length=8), opened)
    texts = Opened(with_texts(opened.bundle, tmp_path, text_preprocessor()), None)
    check_plan(plan(length=16), texts)
    for length in (0, 17):
        with pytest.raises(UsageError, match=f"--length={length}: this model takes 1 to 16 tokens"):
            check_plan(plan(length=length), texts)


def test_bundles_without_samples_get_random_items(opened: Opened, tmp_path: Path) -> None:
    images, said = make_items(Bundle(tmp_path, "", opened.bundle.facts), None)
    assert (images[0].shape, images[0].dtype, said) == ((8, 8, 3), np.uint8, "random pixels")
    assert len({image.tobytes() for image in images}) > 1

    texts, said = make_items(with_texts(opened.bundle, tmp_path, text_preprocessor(segments=True)), 9)
    assert said == "random tokens, brought to 9 tokens each"
    assert {text.shape for text in texts} == {(2, 9)}
    assert {int(token) for text in texts for token in text[0]} == {0, 1, 2}
    assert make_items(opened.bundle, None)[1].endswith("of the bundle's samples in turn")


def test_folder_is_beside_the_exports_or_as_told(opened: Opened, tmp_path: Path) -> None:
    folder = choose_folder(opened.bundle, None)
    assert folder.parent == opened.bundle.path.parent / "benchmarks"
    assert choose_folder(opened.bundle, tmp_path / "new" / "one") == tmp_path / "new" / "one"
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(UsageError, match="is a file, or lies below one: name a folder"):
            choose_folder(opened.bundle, tmp_path / place)


def test_folder_that_may_not_be_written(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "is_writable", lambda _: False)
    with pytest.raises(UsageError, match="nothing can be written to"):
        choose_folder(opened.bundle, tmp_path)


def cell(format: str, threads: int, size: int, throughput: float) -> Cell:
    return Cell(
        format=format, threads=threads, batch_size=size, shape=[size, 24], calls=50, spread=0.0512,  # type: ignore[arg-type]
        latency_ms=Percentiles(p50=0.1234, p95=12.34, p99=1234.5), throughput=throughput, speedup=1.5,
    )  # fmt: skip


BENCHMARK = Benchmark(
    bundle="b" * 64, export=None, created="2026-11-24T18:00:00+00:00", inputs="32 of the bundle's samples in turn",
    seconds=10, left_out={"aoti": "a | reason"}, machine={"cpu": "EPYC", "cores": 2, "flags": ["avx2"], "load": 0.5},
    cells=[cell(name, threads, size, 1000.0 * size * threads)
           for threads in (1, 2, 4, 8) for size in (8, 1) for name in ("eager", "torchscript-int8")],
)  # fmt: skip


@pytest.mark.parametrize(("columns", "titles"), [(80, 7), (90, 8), (100, 9)])
def test_table_fits_the_terminal(
    columns: int, titles: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    print_benchmark(BENCHMARK)

    lines = capsys.readouterr().out.splitlines()
    rows = [[value.strip() for value in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert len(rows) == 16
    assert rows[1][:5] == ["1", "8", "torchscript-int8", "0.123", "12.3"]
    assert rows[1][-2:] == ["8,000", "1.50"]
    assert {len(row) for row in rows} == {titles}
    assert max(map(len, lines)) <= columns


def test_markdown_says_on_what_and_what_not() -> None:
    text = benchmark_markdown(BENCHMARK)

    assert "| timed | the model alone, on the CPU: decoding, tokenising, batching and the server come on top |" in text
    assert "| inputs | 32 of the bundle's samples in turn; of each batch size 8x24, 1x24 |" in text
    assert "| left out: aoti | a \\| reason |" in text
    assert "| load before | 0.5; above" in text
    assert "| 2 | 1 | eager | 0.123 | 12.3 | 1,234 | 5% | 2,000 | 1.50 |" in text


def test_figure_has_a_panel_per_thread_count_and_a_line_per_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)

    figure = benchmark_figure(BENCHMARK)

    assert [axes.get_title() for axes in figure.axes] == ["1 thread", "2 threads", "4 threads", "8 threads"]
    eager, int8 = figure.axes[1].lines
    assert (eager.get_label(), int8.get_label()) == ("eager", "torchscript-int8")
    assert eager.get_xydata().tolist() == [[1, 2000], [8, 16000]], "by batch size, in whatever order it was measured"
    assert (eager.get_linestyle(), int8.get_linestyle()) == ("-", "--")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["eager", "torchscript-int8"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    words = (sys.executable, "-m", "trainyard", "benchmark", *words)
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def test_command_writes_and_prints_the_folder_last(run_folder: Path, tmp_path: Path) -> None:
    words = ("--formats", "onnx", "--batch-sizes", "1,2", "--threads", "1", "--seconds", "0.1", "--out", str(tmp_path))
    done = command(str(run_folder), *words)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path)
    assert "threads 1, inputs of [2, 3, 8, 8]: eager, onnx" in done.stderr
    facts = json.loads((tmp_path / "benchmark.json").read_text())
    assert [(one["format"], one["batch_size"]) for one in facts["cells"]] == [
        ("eager", 1), ("onnx", 1), ("eager", 2), ("onnx", 2),
    ]  # fmt: skip
    assert all(one["calls"] >= 5 and one["latency_ms"]["p50"] > 0 for one in facts["cells"])
    assert (tmp_path / "benchmark.md").read_text().startswith("# Benchmark\n")
    with Image.open(tmp_path / "benchmark.png") as image:
        assert image.width > 300


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--formats", "onx"], "--formats: there is no format onx; the nearest is onnx"),
        (
            ["--batch-sizes", "0"],
            "--batch-sizes: '0' isn't a whole number above 0; write for example --batch-sizes=1,8",
        ),
        (["--threads", "1,x"], "--threads: 'x' isn't a whole number above 0; write for example --threads=1,8"),
    ],
)
def test_command_refuses_nonsense(
    words: list[str], sentence: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainyard import cli

    monkeypatch.setattr(sys, "argv", ["trainyard", "benchmark", str(run_folder), *words])
    monkeypatch.setattr(benchmark, "run_benchmark", lambda *_: pytest.fail("the long work was begun"))
    with pytest.raises(TrainyardError) as refusal:
        cli.app(sys.argv[1:])
    assert (str(refusal.value), refusal.value.exit_code) == (sentence, 2)
