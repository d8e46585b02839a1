"""The command line as such: help, exit codes, tracebacks, and what is imported when."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from trainyard import cli
from trainyard.config.schema import json_schema

pytestmark = pytest.mark.usefixtures("restored")

DIGITS = str(Path(__file__).parents[1] / "support" / "toy" / "digits.yaml")
VERBS = ("train", "config", "evaluate", "export", "predict", "archive", "serve", "ready", "benchmark", "doctor")
HEAVY = ("torch", "transformers", "lightning", "datasets", "pyarrow", "sklearn", "matplotlib")


def run(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", *words])
        cli.main()
    return int(end.value.code or 0)


def python(code: str) -> str:
    """What code prints in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_lists_the_verbs_and_imports_nothing_heavy() -> None:
    code = f"""
import sys
from trainyard.cli import main
sys.argv = ["trainyard", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
print("heavy:", [name for name in {(*HEAVY, "numpy", "pydantic")} if name in sys.modules])
"""
    shown = python(code)

    assert all(f" {verb} " in shown for verb in VERBS)
    assert "heavy: []" in shown


def test_help_reads_no_project(tmp_path: Path) -> None:
    environment = {**os.environ, "TRAINYARD_PROJECT": "nowhere"}
    for words in (["--help"], *([verb, "--help"] for verb in VERBS)):
        subprocess.run([sys.executable, "-m", "trainyard", *words], env=environment, capture_output=True, check=True)


def test_a_slip_in_a_section_of_the_library_is_answered_without_torch_and_the_project() -> None:
    code = f"""
import sys
from trainyard.cli import main
sys.argv = ["trainyard", "train", {DIGITS!r}, "trainer.max_epoch=3"]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in {(*HEAVY, "toy")} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "2 []\n"
    said = "there is no key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"
    assert done.stderr == f"trainyard: {DIGITS}: {said}\n"


def test_the_public_names_are_imported_when_they_are_asked_for() -> None:
    code = """
import sys, trainyard
print([name for name in ("torch", "numpy", "pydantic", "httpx2", "trainyard.inference") if name in sys.modules])
from trainyard import Client, Predictor, Project
print([name for name in trainyard.__all__ if name not in dir(trainyard)], "torch" in sys.modules)
print(Client.__module__, Predictor.__module__, Project.__module__, hasattr(trainyard, "nothing"))
"""
    names = "trainyard.client.client trainyard.inference.predictor trainyard.base.project False"
    assert python(code).splitlines() == ["[]", "[] False", names]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert f"trainyard {verb}" in capsys.readouterr().out


def test_what_answers_works_without_torch(tmp_path: Path) -> None:
    """The serving image installs the bare dependencies alone; a runtime of its own brings the rest."""
    blocked = (*HEAVY, "torchvision", "psutil", "pandas", "safetensors")
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked}))
import importlib, pkgutil
for name in ("base", "config", "preprocess", "artifacts", "inference", "http"):
    for module in pkgutil.iter_modules(importlib.import_module(f"trainyard.{{name}}").__path__):
        importlib.import_module(f"trainyard.{{name}}.{{module.name}}")
from PIL import Image
from trainyard.preprocess.image import ImagePreprocessor
Image.new("RGB", (9, 9)).save({str(tmp_path / "black.png")!r})
preprocessor = ImagePreprocessor(size=8, resize=8)
print(preprocessor.collate([preprocessor.encode(open({str(tmp_path / "black.png")!r}, "rb").read())])["images"].shape)
"""
    assert python(code) == "(1, 3, 8, 8)\n"


@pytest.mark.parametrize(
    "words",
    [["train", "nowhere.yaml"], ["--debug", "train", "nowhere.yaml"], ["train", "--debug", "nowhere.yaml"],
     ["train", "nowhere.yaml", "--debug"], ["train", "nowhere.yaml", "seed=1", "--debug", "name=x"]],
    ids=" ".join,
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_debug_adds_the_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2

    error = capsys.readouterr().err
    debug = "--debug" in words
    assert error.splitlines()[-1] == "trainyard: there is no config file nowhere.yaml"
    assert ("Traceback" in error) == debug
    assert debug or len(error.splitlines()) == 1


@pytest.mark.parametrize("verb", [["evaluate", "nowhere"], ["predict", "nowhere", "x"], ["doctor", "nowhere.yaml"]])
def test_every_verb_takes_debug(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*verb, "--debug") == 2
    assert "Traceback" in capsys.readouterr().err

    os.environ["TRAINYARD_DEBUG"] = ""
    assert run(*verb, "--", "--debug") == 2
    assert "Traceback" not in capsys.readouterr().err, "behind -- it is an input"


def test_a_missing_extra_is_one_sentence() -> None:
    code = "import sys; sys.modules['torch'] = None; from trainyard.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "train", DIGITS], capture_output=True, text=True, check=False)

    fix = "run scripts/setup.sh, or pip install -e '.[train]'"
    assert (done.returncode, done.stderr) == (2, f"trainyard: the package torch isn't installed: {fix}\n")


def test_a_folder_that_cannot_be_made_is_one_sentence_and_a_bug_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> NoReturn:
        raise error

    monkeypatch.setattr(cli, "app", lambda _: fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")))
    assert run("train", DIGITS) == 1
    said = "trainyard: runs/x: No space left on device; free some space, or choose another folder by out=... and "
    assert capsys.readouterr().err == f"{said}data.cache=...\n"

    monkeypatch.setattr(sys, "argv", ["trainyard", "train", DIGITS])
    for bug in (ValueError("a bug"), OSError("a bug"), RuntimeError("a bug"), ModuleNotFoundError(name="trainyard.x")):
        monkeypatch.setattr(cli, "app", lambda _, bug=bug: fail(bug))
        with pytest.raises(type(bug)):
            cli.main()


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)

    assert run() == 130
    assert capsys.readouterr().err == "trainyard: interrupted\n"


@pytest.mark.parametrize(
    "words",
    [["train"], ["config"], ["nonsense"], ["train", DIGITS, "--nonsense"], ["predict", "run", "--top-k", "0"],
     ["evaluate", "run", "--format", "nonsense"], ["train", DIGITS, "nonsense"], ["train", DIGITS, "optim.lr=fast"],
     ["evaluate", "nowhere"], ["predict", "nowhere", "x.png"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_2(words: list[str]) -> None:
    assert run(*words) == 2


def test_a_damaged_bundle_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trainyard.json").write_text("{}")

    assert run("predict", str(tmp_path), "x.png") == 1
    assert "isn't a sealed bundle" in capsys.readouterr().err


def test_config_prints_every_key_with_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", DIGITS, "optim.lr=0.125", "seed=7") == 0

    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["optim"]["lr"], tree["seed"]) == (0.125, 7)
    assert tree["trainer"]["log_every"] == 50, "keys that the file leaves out have their defaults"


def test_config_schema_is_the_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "--schema") == 0

    assert json.loads(capsys.readouterr().out) == json_schema()


def test_evaluate_takes_keys_of_the_data_only(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", str(digits_run), "trainer.max_epochs=3") == 2
    assert "'trainer.max_epochs=3' isn't a key of the data" in capsys.readouterr().err

    assert run("evaluate", str(digits_run), "data.batchsize=3") == 2
    assert "did you mean 'data.batch_size'?" in capsys.readouterr().err


def test_evaluate_prints_a_table_or_json(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = json.loads((digits_run / "metrics.json").read_text())["test"]

    assert run("evaluate", str(digits_run), "--format", "eager") == 0
    assert f"accuracy {own['accuracy']:.4f}" in capsys.readouterr().out

    assert run("evaluate", str(digits_run), "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["format"], scores["accuracy"]) == ("eager", own["accuracy"])


def test_predict_shows_top_k(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((digits_run / "bundle" / "samples" / "golden").iterdir())

    assert run("predict", str(digits_run), str(image), "--top-k", "4", "--json", "--format", "eager") == 0
    assert len(json.loads(capsys.readouterr().out)["top"]) == 4


def test_predict_answers_the_rows_that_it_can(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((digits_run / "bundle" / "samples" / "golden").iterdir())
    table = tmp_path / "list.jsonl"
    table.write_text("\n".join(json.dumps({"image": value}) for value in (None, str(image))))

    assert run("predict", str(digits_run), str(table), "--json") == 1

    bad, good = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert bad == {"input": f"{table}:1", "error": "the row has nothing in column 'image'"}
    assert (good["input"], "label" in good) == (str(image), True)


def test_predict_looks_at_out_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "nowhere", "x.png", "--out", str(tmp_path)) == 2
    assert "is a folder: name a CSV file" in capsys.readouterr().err


def test_train_prints_the_run_folder_last_also_where_its_gate_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.limit=64", "trainer.max_epochs=1", "trainer.threads=1", "trainer.loggers=[]", f"out={tmp_path}/runs",
             f"data.cache={tmp_path}/cache", "data.batch_size=16", "trainer.devices=cpu"]  # fmt: skip
    assert run("train", DIGITS, *words, "trainer.min_gain=0.9") == 3

    out, err = capsys.readouterr()
    (folder,) = out.splitlines()
    assert Path(folder).resolve() == (tmp_path / "runs" / "digits" / "latest").resolve()
    metrics, end = json.JSONDecoder().raw_decode(err[err.index("{") :])
    assert metrics == json.loads((Path(folder) / "metrics.json").read_text())
    assert "less than trainer.min_gain=0.9: look into" in err[err.index("{") + end :]
    assert (Path(folder) / "report.html").is_file()


@pytest.mark.parametrize(("path", "code"), [("embedded:digits", 0), ("nowhere", 1)])
def test_doctor_checks_a_configs_data(path: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"data.path={path}", f"out={tmp_path}/runs", f"data.cache={tmp_path}/cache"]
    assert run("doctor", DIGITS, *words) == code

    shown = " ".join(capsys.readouterr().out.split())
    assert "python" in shown
    assert ("duplicates none" in shown) == (code == 0)
    assert ("ok rehearsal the model takes a step" in shown) == (code == 0)
    assert not (tmp_path / "runs").exists(), "nothing was trained"


def test_renamed_keys_are_moved_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, link = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "link.yaml"
    good.write_text("data:\n  path: x\n  flip: none # yes\n")
    bad.write_text("data: {flip: none}\n")
    link.symlink_to(good)

    assert run("config", "--migrate", str(bad), str(link)) == 3

    out, error = capsys.readouterr()
    assert out == f"{link}: data.flip is augment.flip now\n"
    assert error.startswith(f"{bad}: 'data.flip' is 'augment.flip' now")
    assert good.read_text() == "data:\n  path: x\naugment:\n  flip: none # yes\n"
    assert (bad.read_text(), link.is_symlink()) == ("data: {flip: none}\n", True)
    assert run("config", "--migrate", str(good)) == 0
    assert run("config", "--migrate") == 2
    assert run("config", "--migrate", str(tmp_path / "none.yaml")) == 2
