"""An export as a whole: what passes is kept and told, what doesn't is refused, and nothing is ever half there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tables import FILES

from trainyard import cli
from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import Export, FormatRow, find_export
from trainyard.artifacts.manifest import verify
from trainyard.base.errors import DataError, TrainyardError, UsageError
from trainyard.formats.making import onnx as onnx_format
from trainyard.formats.making import onnx_int8
from trainyard.formats.onnx import OnnxRuntime
from trainyard.formats.recipes import Recipe
from trainyard.formats.source import Source
from trainyard.verify import export as exporting
from trainyard.verify import folder as export_folder
from trainyard.verify.examples import load_examples
from trainyard.verify.export import Options, export
from trainyard.verify.gate import Gate
from trainyard.verify.rank import Outcome

HOLDING = Path(__file__).parents[1] / "holding"
QUICK = Options(("onnx", "onnx-int8"), threads=1)


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["trainyard", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def exported(image_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    run = tmp_path_factory.mktemp("exported")
    shutil.copytree(image_run / "bundle", run / "bundle")
    return export(Bundle.open(run), QUICK, [])


def test_the_export_is_sealed_beside_the_bundle(exported: Export) -> None:
    run = exported.path.parents[1]
    bundle = Bundle.open(run)

    assert exported.path.parent == run / "exports"
    assert (run / "exports" / "latest").resolve() == exported.path
    assert verify(exported.path) == exported.digest
    names = {path.name for path in exported.path.iterdir()}
    assert names == {
        "model.onnx", "model.int8.onnx", "export.json", "export.md", "export.png", "manifest.json",
    }  # fmt: skip
    assert find_export(bundle) == exported


def test_every_format_has_its_row(exported: Export) -> None:
    rows = {row.name: row for row in exported.facts.formats}

    assert list(rows) == ["eager", "onnx", "onnx-int8"]
    assert rows["eager"].status == "reference"
    assert rows["onnx"].status == "passed"
    assert rows["onnx"].agreement == 1
    assert rows["onnx"].max_abs_diff is not None
    assert rows["onnx"].max_abs_diff <= 1e-3
    assert rows["onnx-int8"].made_with == ["static, minmax, per channel: passed"]
    assert rows["onnx-int8"].needs in (["avx512_vnni"], ["avx_vnni"], [])
    for row in rows.values():
        assert row.latency_ms is not None
        assert row.latency_ms.p95 >= row.latency_ms.p50 > 0
        assert row.accuracy_interval is not None
        assert row.accuracy is not None
        assert row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]


def test_the_facts_say_what_was_scored_and_where(exported: Export) -> None:
    facts = exported.facts

    assert facts.bundle == Bundle.open(exported.path.parents[1]).digest
    assert facts.data["split"] == "test"
    assert facts.gate == {**Gate().to_dict(), "allow_refused": False}
    assert facts.machine["threads"] == 1
    assert {"cpu", "flags", "batch_size", "packages"} <= facts.machine.keys()
    assert facts.recommended in {row.name for row in facts.formats if row.status in ("passed", "reference")}


def test_the_recommended_format_is_the_fastest_that_passed(exported: Export) -> None:
    passed = [row for row in exported.facts.formats if row.status in ("reference", "passed")]

    assert exported.facts.recommended == max(passed, key=lambda row: row.speedup or 0).name


def swap_labels(file: Path) -> None:
    """Exchanges the first two classes in the output layer."""
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(("fc.weight", "fc.bias")):
            values = numpy_helper.to_array(tensor).copy()
            values[[0, 1]] = values[[1, 0]]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, file)


def perturb(file: Path) -> None:
    model = onnx.load(file)
    generator = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("conv1.weight"):
            values = numpy_helper.to_array(tensor)
            noisy = values * generator.normal(1, 0.01, values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
    onnx.save(model, file)


def forget_the_mean(file: Path) -> None:
    model = onnx.load(file)
    [subtraction] = [node for node in model.graph.node if node.op_type == "Sub"]
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == subtraction.input[1])
    mean.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(mean)), mean.name))
    onnx.save(model, file)


def freeze_the_batch(file: Path) -> None:
    model = onnx.load(file)
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, file)


def answer_always_the_same(file: Path) -> None:
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("fc.weight"):
            values = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, file)


SABOTAGE: dict[Callable[[Path], None], str] = {
    swap_labels: "accuracy .* is below 99 %",
    perturb: "a logit differs by .* from eager's",
    forget_the_mean: "a logit differs by .* from eager's",
    freeze_the_batch: "fails on the examples",
    answer_always_the_same: "hardly depend on the example",
}


@pytest.mark.parametrize("spoil", SABOTAGE, ids=lambda spoil: spoil.__name__)
def test_a_sabotaged_format_is_refused_for_the_right_reason(
    spoil: Callable[[Path], None], copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = onnx_format.make
    monkeypatch.setattr(onnx_format, "make", lambda source, file: (make(source, file), spoil(file)))

    made = export(Bundle.open(copied_run), Options(("onnx",), threads=1), [])

    row = made.facts.row("onnx")
    assert row is not None
    assert row.status == "refused"
    assert row.file is None
    assert row.latency_ms is None
    assert re.search(SABOTAGE[spoil], row.reason), row.reason
    assert not (made.path / "model.onnx").exists()
    assert made.facts.recommended == "eager"


def spoil_int8(monkeypatch: pytest.MonkeyPatch, good: Callable[[Recipe], bool]) -> list[Recipe]:
    """Lets only some recipes give a model that works; returns those that are tried."""
    make, tried = onnx_int8.make, list[Recipe]()

    def spoiled(source: Source, fp32: Path, file: Path, recipe: Recipe) -> None:
        tried.append(recipe)
        if good(recipe):
            make(source, fp32, file, recipe)
        else:
            shutil.copy(fp32, file)
            swap_labels(file)

    monkeypatch.setattr(onnx_int8, "make", spoiled)
    return tried


def test_recipes_are_tried_until_one_passes(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = spoil_int8(monkeypatch, lambda recipe: bool(recipe.exclude))

    made = export(Bundle.open(copied_run), Options(("onnx-int8",), threads=1), [])

    row = made.facts.row("onnx-int8")
    assert row is not None
    assert row.status in ("passed", "no_gain")
    assert [recipe.calibrator for recipe in tried] == ["minmax", "percentile", "entropy", "minmax"]
    assert len(tried[-1].exclude) == 1
    assert [line.rpartition(": ")[2] for line in row.made_with][-1] == "passed"
    assert "layers in fp32" in row.made_with[-1]
    assert (made.path / "model.int8.onnx").is_file()


def test_refused_formats_end_the_verb_with_3_and_stay_only_if_allowed(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_int8(monkeypatch, lambda _: False)
    words = ["export", str(copied_run), "--formats", "onnx-int8", "--threads", "1"]

    assert command(monkeypatch, *words) == 3
    refused = Path(capsys.readouterr().out.splitlines()[-1])
    assert not (refused / "model.int8.onnx").exists()

    assert command(monkeypatch, *words, "--allow-refused") == 0
    allowed = Path(capsys.readouterr().out.splitlines()[-1])
    assert (allowed / "model.int8.onnx").is_file()
    facts = json.loads((allowed / "export.json").read_text())
    assert facts["gate"]["allow_refused"] is True
    assert facts["formats"][1]["status"] == "refused"
    assert facts["formats"][1]["file"] == "model.int8.onnx"
    assert facts["recommended"] == "eager"
    assert OnnxRuntime(allowed / "model.int8.onnx")


def test_a_lower_gate_lets_more_pass(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = export(Bundle.open(copied_run), Options(("onnx",), 1, Gate(metric_share=1.5)), [])
    row = strict.facts.row("onnx")

    assert row is not None
    assert row.status == "refused"
    assert "is below 150 % of eager's" in row.reason


def test_an_int8_that_is_not_faster_is_no_gain(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntime.logits

    def slow_int8(self: OnnxRuntime, inputs: dict) -> np.ndarray:
        if any(node.startswith("slow") for node in [getattr(self, "mark", "")]):
            time.sleep(0.05)
        return run(self, inputs)

    start = OnnxRuntime.__init__

    def marked(self: OnnxRuntime, file: Path, *rest: object) -> None:
        start(self, file, *rest)
        self.mark = "slow" if "int8" in file.name else ""

    monkeypatch.setattr(OnnxRuntime, "__init__", marked)
    monkeypatch.setattr(OnnxRuntime, "logits", slow_int8)

    made = export(Bundle.open(copied_run), QUICK, [])

    row = made.facts.row("onnx-int8")
    assert row is not None
    assert row.status == "no_gain"
    assert "of the speed of onnx" in row.reason
    assert made.facts.recommended == "onnx"
    assert (made.path / "model.int8.onnx").is_file()


def test_without_the_data_the_bundles_samples_are_scored(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = Bundle.open(copied_run)
    config = {**bundle.facts.data.config, "path": str(copied_run / "gone")}
    monkeypatch.setitem(bundle.facts.data.__dict__, "config", config)

    examples = load_examples(bundle, [])

    assert len(examples.labels) == 128
    assert "samples" in str(examples.origin["split"])
    assert "int8 is calibrated on too" in caplog.text
    with pytest.raises(UsageError, match="gone"):
        load_examples(bundle, [f"data.path={copied_run}/gone"])


def test_data_that_changed_since_the_training_is_an_error(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(copied_run)
    monkeypatch.setitem(bundle.facts.data.__dict__, "fingerprint", "0" * 64)

    with pytest.raises(DataError, match="changed since the training"):
        load_examples(bundle, [])


def test_an_unknown_format_names_the_nearest(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "export", str(copied_run), "--formats", "onx,aoti") == 2
    assert "there is no format onx; the nearest is onnx" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    copied_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_folder, "is_writable", lambda _: False)
    monkeypatch.setattr(exporting, "load_examples", lambda *_: pytest.fail("that takes long"))

    with pytest.raises(TrainyardError, match="nothing can be written to .*exports") as error:
        export(Bundle.open(copied_run), QUICK, [])
    assert error.value.exit_code == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(copied_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")

    monkeypatch.setattr(onnx_format, "save", full)
    before = verify(copied_run / "bundle")

    with pytest.raises(TrainyardError, match="No space left on device.*free some space") as error:
        export(Bundle.open(copied_run), QUICK, [])
    assert error.value.exit_code == 1
    assert list((copied_run / "exports").iterdir()) == []
    assert verify(copied_run / "bundle") == before


@pytest.mark.slow
@pytest.mark.parametrize("held", ["model.onnx", "manifest.json", "the export"])
def test_killed_at_any_moment_nothing_is_half_there(copied_run: Path, tmp_path: Path, held: str) -> None:
    """Killed before the rename of a file in it, or of the whole folder; the next export clears up."""
    before = verify(copied_run / "bundle")
    sign = tmp_path / "held"
    words = [sys.executable, "-m", "trainyard", "export", str(copied_run), "--formats", "onnx", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{HOLDING}{os.pathsep}{os.environ['PYTHONPATH']}", "HELD": str(sign)}
    environment["HOLD_BEFORE"] = "20*" if held == "the export" else held
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not sign.exists():
        assert process.poll() is None, "it ended before it was held"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()

    left = list((copied_run / "exports").iterdir())
    assert all(path.name.startswith(".") for path in left)
    assert find_export(Bundle.open(copied_run)) is None
    assert verify(copied_run / "bundle") == before

    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (copied_run / "exports").iterdir()}
    assert names == {"latest", Path(done.stdout.splitlines()[-1]).name}


@pytest.mark.slow
def test_sigterm_takes_away_what_was_half_done(copied_run: Path, tmp_path: Path) -> None:
    sign = tmp_path / "held"
    words = [sys.executable, "-m", "trainyard", "export", str(copied_run), "--formats", "onnx", "--threads", "1"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HOLDING}{os.pathsep}{os.environ['PYTHONPATH']}",
        "HELD": str(sign),
        "HOLD_BEFORE": "export.json",
    }
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not sign.exists():
        assert process.poll() is None, "it ended before it was held"
        time.sleep(0.05)
    process.terminate()

    assert process.wait() == 143
    assert list((copied_run / "exports").iterdir()) == []


@pytest.mark.slow
def test_two_exports_in_two_places_give_the_same_onnx_files(copied_run: Path, tmp_path: Path) -> None:
    digests = []
    for place, seed in (("here", "1"), ("there", "2")):
        folder = tmp_path / place
        shutil.copytree(copied_run, folder / "run")
        words = [sys.executable, "-m", "trainyard", "export", "run", "--formats", "onnx,onnx-int8", "--threads", seed]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(folder), "HOME": str(folder)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        manifest = json.loads((folder / "run" / "exports" / "latest" / "manifest.json").read_text())
        digests.append({name: manifest["files"][name]["sha256"] for name in ("model.onnx", "model.int8.onnx")})

    assert digests[0] == digests[1]


@pytest.mark.parametrize("order", list(permutations(("onnx", "onnx-cuda"))), ids=" ".join)
@pytest.mark.parametrize("refused", [(), ("onnx",), ("onnx-cuda",), ("onnx", "onnx-cuda")], ids=str)
@pytest.mark.parametrize("allow_refused", [False, True])
def test_a_file_of_two_formats_stays_as_long_as_one_of_them_has_it(
    order: tuple[str, ...], refused: tuple[str, ...], allow_refused: bool, tmp_path: Path
) -> None:
    folder, options = tmp_path / "export", Options(order, allow_refused=allow_refused)
    folder.mkdir()
    kept = []
    for name in order:
        file = tmp_path / name / FILES[name]
        file.parent.mkdir()
        file.write_bytes(b"one graph")
        made = FormatRow(name=name, file=file.name, status="refused" if name in refused else "passed")
        kept.append(exporting._keep(made, Outcome(name, file), folder, options))

    expected = [name for name in order if allow_refused or name not in refused]
    assert [row.name for row in kept if row.file] == expected
    assert [path.read_bytes() for path in folder.iterdir()] == [b"one graph"] * bool(expected)


def test_a_file_of_two_formats_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.onnx").write_bytes(b"one graph")
    (tmp_path / "model.onnx").write_bytes(b"another")
    made = FormatRow(name="onnx-cuda", file="model.onnx", status="passed")

    with pytest.raises(AssertionError, match="onnx-cuda makes another model.onnx"):
        exporting._keep(made, Outcome("onnx-cuda", tmp_path / "model.onnx"), tmp_path / "export", Options())
    assert (tmp_path / "export" / "model.onnx").read_bytes() == b"one graph"
