"""Archives: what they hold, that they are the same when made again, and that they answer from their own content."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from tables import FILES

from trainyard import cli
from trainyard.artifacts.bundle import WEIGHTS
from trainyard.artifacts.export_record import FormatName, FormatRow, Opened, open_trusted
from trainyard.artifacts.manifest import digest
from trainyard.artifacts.samples import golden_samples
from trainyard.base.cpu import Cpu
from trainyard.base.errors import TrainyardError, UsageError
from trainyard.base.files import sha256_file
from trainyard.base.project import find_project, require_project
from trainyard.inference.predictor import Predictor
from trainyard.inference.selection import check_device
from trainyard.torchserve import archive, settings
from trainyard.torchserve.archive import (
    Model,
    check_name,
    choose_format,
    default_name,
    make_archive,
    unpack,
)
from trainyard.torchserve.deployment import PACKAGE
from trainyard.torchserve.settings import Settings

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]

SETTINGS = Settings(
    format="onnx", workers=2, threads=3, batch_size=16, max_batch_delay_ms=5, response_timeout_s=7, queue_size=9
)
HEAVY = ("torch", "torchvision", "transformers", "lightning", "safetensors", "pandas", "psutil", "typer", "rich")


@pytest.fixture
def run(bare_run: Path, make_export: MakeExport, row: Row, onnx_file: Path) -> Path:
    """A run with an export in which every status occurs."""
    make_export(
        row("eager", "reference", file=None),
        row("torchscript", "refused", reason="accuracy 0.5 < 0.9"),
        row("onnx", throughput=200),
        row("onnx-int8", "no_gain", reason="it is slower"),
        row("aoti", "skipped", reason="no compiler"),
        row("aoti-int8", "batch_dependent", reason="moves by 0.2"),
        recommended="onnx",
        files={"model.onnx": onnx_file.read_bytes()},
    )
    return bare_run


def make(run: Path, path: Path, format: FormatName = "onnx", settings: Settings = SETTINGS) -> Path:
    settings = settings.model_copy(update={"format": format})
    return make_archive(Model("digits", "2.1", settings, open_trusted(run, format)), path)


def unpacked(path: Path) -> Model:
    return unpack(path, Path(tempfile.mkdtemp(dir=path.parent)))


def command(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", *words])
        cli.main()
    return int(end.value.code or 0)


def test_it_holds_what_serves_and_nothing_else(run: Path, tmp_path: Path) -> None:
    with ZipFile(make(run, tmp_path / "a.mar")) as made:
        names = made.namelist()
        own = json.loads(made.read("MAR-INF/MANIFEST.json"))

    assert names == sorted(names)
    assert {name.partition("/")[0] for name in names} == {
        "MAR-INF", "deployed", "handler.py", "model-config.yaml", PACKAGE,
    }  # fmt: skip
    assert [name for name in names if Path(name).name in {*FILES.values(), WEIGHTS}] == [
        "deployed/exports/one/model.onnx"
    ]
    assert not [name for name in names if name.endswith(".pyc")]
    assert own["model"] == {
        "modelName": "digits", "modelVersion": "2.1", "handler": "handler.py", "configFile": "model-config.yaml",
    }  # fmt: skip


def test_eager_brings_the_weights_and_the_models(bare_run: Path, tmp_path: Path) -> None:
    with ZipFile(make(bare_run, tmp_path / "a.mar", "eager")) as made:
        names = made.namelist()

    assert f"deployed/bundle/{WEIGHTS}" in names
    assert not [name for name in names if name.startswith("deployed/exports")]
    assert {f"{PACKAGE}/models/{name}.py" for name in ("image", "wordpiece")} <= set(names)
    project = find_project()
    assert project is not None
    own = {name for name in names if name.startswith(f"project/{project.package}/")}
    assert {f"project/{project.package}/__init__.py"} < own, "its models too"


def test_made_again_it_is_the_same_wherever_and_whenever(run: Path, tmp_path: Path) -> None:
    first = make(run, tmp_path / "a.mar").read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved, symlinks=True)
    for path in moved.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
        path.chmod(0o700)

    assert make(moved, tmp_path / "b" / "c.mar").read_bytes() == first


def test_what_was_archived_is_read_again_and_makes_the_same_archive(run: Path, tmp_path: Path) -> None:
    formats: tuple[FormatName, ...] = ("onnx", "eager")
    for format in formats:
        path = make(run, tmp_path / "a.mar", format)
        found = unpacked(path)
        assert (found.name, found.version) == ("digits", "2.1")
        assert found.settings == SETTINGS.model_copy(update={"format": format})
        assert found.opened.bundle.digest == digest(run / "bundle")
        export = found.opened.export
        assert (export and export.digest) == (digest(run / "exports" / "one") if format == "onnx" else None)
        again = make_archive(found, tmp_path / "b.mar")
        assert again.read_bytes() == path.read_bytes()


def test_eager_needs_the_project_of_its_model(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for project in (None, replace(require_project(), models={})):
        monkeypatch.setattr(archive, "find_project", lambda project=project: project)
        with pytest.raises(UsageError, match="no project has that is installed here: install its project, or choose"):
            make(run, tmp_path / "a.mar", "eager")
        make(run, tmp_path / "a.mar", "onnx")


def test_torchserve_reads_the_settings_in_its_spelling() -> None:
    assert yaml.safe_load(SETTINGS.to_yaml()) == {
        "minWorkers": 2, "maxWorkers": 2, "batchSize": 16, "maxBatchDelay": 5, "responseTimeout": 7,
        "startupTimeout": 120, "maxRetryTimeoutInSec": 300, "jobQueueSize": 9, "deviceType": "cpu",
        "handler": {"format": "onnx", "threads": 3, "device": "cpu", "batch_size": 16},
    }  # fmt: skip
    assert b"deviceType: gpu" in Settings(device="cuda").to_yaml()
    assert Settings.from_yaml(SETTINGS.to_yaml()) == SETTINGS
    assert Settings.from_yaml(SETTINGS.to_yaml().replace(b"format:", b"rung:")) == SETTINGS, "of the first release"


@pytest.mark.parametrize(
    ("cores", "chosen", "expected"),
    [(1, {}, (1, 1)), (2, {}, (2, 1)), (4, {}, (4, 1)), (6, {}, (4, 1)), (16, {}, (4, 4)),
     (16, {"workers": 2}, (2, 8)), (16, {"workers": 32}, (32, 1)), (16, {"threads": 8}, (2, 8)),
     (2, {"threads": 8}, (1, 8)), (2, {"workers": 3, "threads": 5}, (3, 5))],
)  # fmt: skip
def test_by_default_workers_and_threads_fill_the_cores(
    cores: int, chosen: dict[str, int], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "this_cpu", lambda: Cpu("cpu", (), cores))

    found = Settings.chosen(**chosen).for_machine("onnx")

    assert (found.workers, found.threads) == expected


def test_what_is_chosen_is_kept_and_a_gpu_has_one_worker() -> None:
    assert Settings.chosen(batch_size=1, workers=None, format="auto").for_machine("onnx").batch_size == 1
    gpu = Settings.chosen(device="cuda").for_machine("eager")
    assert (gpu.workers, gpu.device, gpu.format) == (1, "cuda", "eager")
    assert Settings().for_machine("onnx-cuda").device == "cuda"
    assert SETTINGS.with_chosen(Settings.chosen(workers=1, device="cpu")) == SETTINGS.model_copy(update={"workers": 1})
    with pytest.raises(UsageError, match="--max-batch-delay 10001 isn't possible: Input should be less than or equal"):
        Settings.chosen(max_batch_delay_ms=10_001)


ANSWER = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
folder, heavy = Path(sys.argv[1]), sys.argv[2].split(",")
sys.modules.update(dict.fromkeys(filter(None, heavy)))
import yaml
sys.path = [str(folder), *(path for path in sys.path if not (Path(path) / PACKAGE).is_dir())]
import handler
status = []
context = SimpleNamespace(
    model_yaml_config=yaml.safe_load((folder / "model-config.yaml").read_text()),
    manifest=json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text()),
    system_properties={"model_dir": str(folder), "batch_size": 4, "gpu_id": None},
    get_all_request_header=lambda i: {},
    set_response_status=lambda code, phrase="", idx=0: status.append(code),
    set_response_header=lambda *_: None,
    set_response_content_type=lambda i, kind: None,
)
[model] = [value for value in vars(handler).values() if isinstance(value, type) and value.__module__ == "handler"]
model = model()
model.initialize(context)
rows = [{"body": path.read_bytes()} for path in sorted((folder / "deployed/bundle/samples/golden").iterdir())]
answers = model.handle(rows, context)
assert {Path(m.__file__).parts[: len(folder.parts)] for n, m in sys.modules.items()
        if n.split(".")[0] == PACKAGE} == {folder.parts}
print(json.dumps([status, [json.loads(answer) for answer in answers]]))
"""


def answers(path: Path, folder: Path, heavy: tuple[str, ...]) -> list[dict[str, object]]:
    """What the handler of an unpacked archive answers to the golden requests, far from this project."""
    with ZipFile(path) as made:
        made.extractall(folder)
    code = ANSWER.replace("PACKAGE", repr(PACKAGE))
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TRAINYARD_EXPECT")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.resolve()), ",".join(heavy)],
        capture_output=True, text=True, check=False, cwd=folder, env=clean,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    status, replies = json.loads(done.stdout)
    assert status == [200] * len(replies)
    return list(replies)


@pytest.mark.parametrize(("format", "heavy"), [("onnx", HEAVY), pytest.param("eager", (), marks=pytest.mark.slow)])
def test_unpacked_it_answers_without_this_project(
    format: FormatName, heavy: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    replies = answers(make(run, tmp_path / "a.mar", format), tmp_path / "unpacked", heavy)

    predictor = Predictor(run, format, device="cpu")
    own = predictor.predict([sample.item for sample in golden_samples(run / "bundle")])
    assert [reply["label"] for reply in replies] == [one.label for one in own]
    assert [reply["probability"] for reply in replies] == pytest.approx([one.probability for one in own], abs=1e-5)
    assert {(reply["model"], reply["version"]) for reply in replies} == {("digits", "2.1")}
    assert replies[0]["deployed"] == predictor.deployed._asdict()


@pytest.mark.parametrize(
    ("format", "says"),
    [("torchscript", r"refused when it was exported \(accuracy 0.5 < 0.9\): choose another format"),
     ("aoti", r"skipped when it was exported \(no compiler\)"),
     ("aoti-int8", r"batch_dependent when it was exported \(moves by 0.2\)")],
)  # fmt: skip
def test_what_the_gate_stopped_is_not_archived(
    format: FormatName, says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainyardError, match=f"{format} isn't archived, as it was {says}"):
        make(run, tmp_path / "a.mar", format)

    assert command("archive", str(run), "--format", format) == 3
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert not (run / "archives").exists()


def test_what_brought_no_gain_is_archived_by_name(run: Path, tmp_path: Path) -> None:
    assert unpacked(make(run, tmp_path / "a.mar", "onnx-int8")).settings.format == "onnx-int8"


def test_a_format_that_was_not_exported_is_wrong_usage(
    run: Path, bare_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="there is no torchscript-int8 of .*: make it with trainyard export"):
        make(run, tmp_path / "a.mar", "torchscript-int8")

    shutil.rmtree(bare_run / "exports")
    assert command("archive", str(bare_run), "--format", "onnx") == 2
    assert "make it with trainyard export" in capsys.readouterr().err


def test_auto_is_what_was_recommended(run: Path, make_export: MakeExport, row: Row) -> None:
    opened = open_trusted(run)

    assert choose_format(opened, "auto", "cpu") == "onnx"
    assert choose_format(opened, "onnx-int8", "cpu") == "onnx-int8"
    assert choose_format(opened, "auto", "cuda") == "eager"
    assert choose_format(Opened(opened.bundle, None), "auto", "cpu") == "eager"
    make_export(row("onnx"), row("onnx-cuda", throughput=10), row("aoti-fp16", throughput=20),
                row("aoti-bf16", "no_gain", throughput=30), id="two")  # fmt: skip
    assert choose_format(open_trusted(run), "auto", "cuda") == "aoti-fp16"


def test_a_format_and_its_device_fit_together(run: Path, tmp_path: Path) -> None:
    for format in ("eager", "torchscript", "onnx-cuda", "aoti-bf16"):
        check_device(format, "cuda")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="aoti runs on the CPU alone"):
        check_device("aoti", "cuda")
    with pytest.raises(UsageError, match="onnx-cuda runs on a GPU alone"):
        check_device("onnx-cuda", "cpu")
    with pytest.raises(UsageError, match="onnx-int8 runs on the CPU alone"):
        make(run, tmp_path / "a.mar", "onnx-int8", SETTINGS.model_copy(update={"device": "cuda"}))


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "é", "-a", "a" * 65, "a\n", "a.b"])
def test_a_name_must_fit_into_a_url(name: str) -> None:
    with pytest.raises(UsageError, match="can't name a model"):
        check_name(name, "1.0")


@pytest.mark.parametrize("version", ["", "../1", "1 0", ".1", "1" * 33, "1\n"])
def test_a_version_must_fit_into_a_url(version: str) -> None:
    with pytest.raises(UsageError, match="can't be a version"):
        check_name("a", version)


@pytest.mark.parametrize(
    ("bundle", "name"),
    [("digits_resnet", "digits_resnet"), ("my model/2", "my-model-2"), ("é.", "model"), ("a" * 99, "a" * 64)],
)
def test_the_bundles_name_is_made_to_fit(bundle: str, name: str, bare_run: Path) -> None:
    opened = open_trusted(bare_run, "eager")
    facts = opened.bundle.facts.model_copy(update={"name": bundle})

    assert default_name(Opened(replace(opened.bundle, facts=facts), None)) == name
    check_name(name, "1.0")


def test_a_failure_leaves_the_old_archive(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(run, tmp_path / "a.mar")
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="No space"):
        make(run, path, "eager")

    assert path.read_bytes() == old
    assert not list(tmp_path.glob(".*tmp*"))


def test_an_archive_has_a_bound(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 100_000)

    with pytest.raises(UsageError, match="100,000 is the most: choose a smaller format"):
        make(run, tmp_path / "a.mar")
    assert not list(tmp_path.glob("*.mar"))


def test_the_verb_prints_the_path_last_and_the_hash_beside(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("archive", str(run), "--workers", "3", "--threads", "2", "--batch-size", "5") == 0

    out, err = capsys.readouterr()
    path = Path(out.splitlines()[-1])
    facts = unpacked(path)
    assert path == (run / "archives" / "digits-1.0.mar").resolve()
    assert (facts.name, facts.version) == ("digits", "1.0")
    assert facts.settings == Settings(format="onnx", workers=3, threads=2, batch_size=5)
    assert f"{path.stat().st_size:,} bytes, SHA-256 {sha256_file(path)}" in err


def test_the_verb_takes_a_name_a_version_and_a_place(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--name", "mine", "--version", "v2", "--out", str(tmp_path / "x" / "y.mar"), "--max-batch-delay", "0"]
    assert command("archive", str(run), "--format", "eager", *words, "--expect", digest(run / "bundle")) == 0

    facts = unpacked(Path(capsys.readouterr().out.strip()))
    assert (facts.settings.format, facts.settings.max_batch_delay_ms) == ("eager", 0)
    assert (facts.name, facts.version) == ("mine", "v2")

    assert command("archive", str(run), "--expect", "f" * 64) == 1
    assert command("archive", str(run), "--name", "a/b") == 2
    for out in (tmp_path, tmp_path / "model.zip"):
        assert command("archive", str(run), "--out", str(out)) == 2
        assert "must be a file that ends in .mar" in capsys.readouterr().err
