"""An export through the command line, in processes of its own: what it prints, where, and what answers afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXTS = ["I was charged twice for my order, please refund one payment", "Where is my parcel?", "reset my password " * 9]
TRAINER = {"devices": "cpu", "threads": 1, "loggers": []}
LSTM = {
    "name": "lstm",
    "data": {"kind": "texts", "path": "embedded:tickets", "limit": 1000, "max_length": 32},
    "model": {"kind": "rnn", "name": "lstm", "embedding_size": 32, "hidden_size": 32, "vocab_size": 800},
    "optim": {"name": "adamw", "lr": 5e-3},
    "trainer": {"max_epochs": 10, **TRAINER},
}
PAIRS = {
    "name": "pairs",
    "data": {"kind": "texts", "pair": True, "text": ["first", "second"], "max_length": 32, "batch_size": 16},
    "model": {"kind": "bert", "pretrained": False, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2,
              "vocab_size": 200},
    "optim": {"name": "adamw", "lr": 5e-3},
    "trainer": {"max_epochs": 15, **TRAINER},
}  # fmt: skip
OURS = (
    r"scoring eager on \d+ examples",
    r"TorchScript is deprecated since torch 2\.11, .*",
    r"(torchscript|onnx|aoti)(-int8)?: (making it|(static|dynamic), .*)",
    r"timing \d+ formats in turns",
    r"its digest, for --expect: [0-9a-f]{64}",
)
"""All that an export says on stderr."""

pytestmark = pytest.mark.slow


def call(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command in processes of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "NPROC")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRAINYARD_PYTHON": sys.executable}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def trainyard(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "trainyard", *words, cwd=cwd)


def export(run: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return call(ROOT / "scripts" / "export.sh", run, *words, cwd=cwd)


def train(folder: Path, config: dict[str, object], *overrides: str) -> Path:
    file = folder / f"{config['name']}.yaml"
    file.write_text(yaml.safe_dump(config))
    done = trainyard("train", file, f"out={folder}/runs", f"data.cache={folder}/cache", *overrides)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def rows_of(exported: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """The formats by their names, from the folder that the last line of stdout names."""
    assert exported.returncode == 0, exported.stdout + exported.stderr
    facts = json.loads((Path(exported.stdout.splitlines()[-1]) / "export.json").read_text())
    return {row["name"]: row for row in facts["formats"]}


def answers(run: Path, format: str) -> list[dict[str, object]]:
    done = trainyard("predict", run, *TEXTS, "--format", format, "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("lstm"), LSTM)


@pytest.fixture(scope="module")
def exported(lstm: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The export of the LSTM, made from another folder than the clone."""
    formats = "torchscript,torchscript-int8,onnx,aoti"
    return export(lstm, "--formats", formats, "--threads", "1", cwd=tmp_path_factory.mktemp("elsewhere"))


def test_a_recurrent_model_passes_as_torchscript_and_the_rest_says_why_not(exported) -> None:
    rows = rows_of(exported)

    assert list(rows) == ["eager", "torchscript", "torchscript-int8", "onnx", "aoti"]
    assert (rows["torchscript"]["status"], rows["torchscript"]["reason"]) == ("passed", "")
    # Its dynamic scale is that of the batch at hand.
    assert rows["torchscript-int8"]["status"] in ("batch_dependent", "no_gain", "passed")
    for format in ("onnx", "aoti"):
        assert (rows[format]["status"], rows[format]["file"]) == ("skipped", None)
        assert "unrolls recurrent layers" in str(rows[format]["reason"])


def test_stdout_ends_with_the_folder_and_stderr_is_ours_alone(exported, lstm: Path) -> None:
    folder = Path(exported.stdout.splitlines()[-1])

    assert folder.parent == lstm / "exports"
    assert (lstm / "exports" / "latest").resolve() == folder.resolve()
    assert not [line for line in exported.stderr.splitlines() if not re.fullmatch("|".join(OURS), line)]
    assert "torch.export unrolls" in " ".join(exported.stdout.split())


def test_torchscript_gives_the_answers_of_eager(exported, lstm: Path) -> None:
    assert exported.returncode == 0
    for one, other in zip(answers(lstm, "torchscript"), answers(lstm, "eager"), strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_evaluate_scores_a_format_and_says_which(exported, lstm: Path) -> None:
    own = json.loads((lstm / "metrics.json").read_text())["test"]

    done = trainyard("evaluate", lstm, "--format", "torchscript", "--json")

    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert (scores["format"], scores["export"]) == ("torchscript", Path(exported.stdout.splitlines()[-1]).name)
    assert scores["accuracy"] == own["accuracy"]
    assert scores["loss"] == pytest.approx(own["loss"], abs=1e-4)


def test_a_format_that_was_skipped_can_not_answer(exported, lstm: Path) -> None:
    assert exported.returncode == 0

    done = trainyard("predict", lstm, TEXTS[0], "--format", "onnx")

    assert (done.returncode, done.stdout) == (2, "")
    assert "trainyard: onnx was skipped when it was exported (torch.export unrolls" in done.stderr


def test_pairs_of_texts_are_exported_to_onnx(tmp_path: Path) -> None:
    colours = ["red", "green", "blue", "white"]
    # The colour in the second text is the class, and that in the first means nothing.
    lines = [f"it is {one} {i},{other} it is,{other}" for i in range(16) for one in colours for other in colours]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,label", *lines]) + "\n")
    run = train(tmp_path, PAIRS, f"data.path={tmp_path}/pairs.csv")

    rows = rows_of(export(run, "--formats", "onnx", "--threads", "1"))

    assert (rows["onnx"]["status"], rows["onnx"]["reason"]) == ("passed", "")
    assert float(str(rows["onnx"]["accuracy"])) > 0.9, "it must have learnt to tell the texts apart"


def test_a_bundle_without_samples_is_one_sentence(tmp_path: Path) -> None:
    run = train(tmp_path, LSTM, "bundle.samples=false", "trainer.max_epochs=1", "data.limit=80")

    done = export(run, "--formats", "torchscript", "--threads", "1")

    assert (done.returncode, done.stdout) == (2, "")
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("trainyard: ")
    assert sentence.endswith("train with bundle.samples=true")
    assert not (run / "exports").exists()
