"""The example in docs/your-project.md works as it is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from trainyard.artifacts.export_record import FormatName, open_trusted
from trainyard.artifacts.samples import golden_samples
from trainyard.base.errors import UsageError
from trainyard.base.project import Project
from trainyard.client.client import Client
from trainyard.client.replies import Answer
from trainyard.config import kinds
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.kinds import model_classes, parse_model
from trainyard.heads.base import Prediction
from trainyard.inference.predictor import Predictor
from trainyard.models.base import ModelConfig, Task
from trainyard.models.classifier import fold_temperature
from trainyard.torchserve.running import running

DOCUMENT = Path(__file__).parents[3] / "docs" / "your-project.md"
MODULE = "tiny_cnn"


def code_blocks() -> list[str]:
    """The model's file, its line in the project, and its section of a config."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"```(?:python|yaml)\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """Registers the document's model, and reads the document's config."""
    file, line, config = code_blocks()
    module = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    exec(compile(file, str(DOCUMENT), "exec"), module.__dict__)
    models: dict[str, str] = {}
    exec(line, {"models": models})
    monkeypatch.setattr(kinds, "find_project", lambda: Project(__name__, models=models))
    return parse_model(yaml.safe_load(config)["model"])


def test_example_is_registered(example: ModelConfig) -> None:
    assert type(example) in model_classes()
    assert example.kind == "tiny_cnn"


def test_example_trains_a_step_and_is_restored(example: ModelConfig, tmp_path: Path) -> None:
    preprocessor = example.preprocessor(ImagesConfig(kind="images", path="unused", image_size=16), [])
    task = Task(("a", "b", "c"), preprocessor)
    classifier = example.build(task)
    assert classifier.network[0][0].out_channels == 16
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    classifier(images).logsumexp(dim=1).sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())

    restored = example.restore(task, tmp_path)
    restored.network.load_state_dict(classifier.network.state_dict())
    logits = classifier.eval()(images)
    assert torch.equal(restored.eval()(images), logits)
    fold_temperature(restored, 2.0)
    torch.testing.assert_close(restored(images), logits / 2)


def command_line(folder: Path, verb: str, *words: str) -> str:
    """What a verb prints where the document's model is in the project.

    Args:
        folder: Where the model's file is written, and the document's config as ``tiny.yaml``.
        verb: Of the command line.
        words: Its arguments.
    """
    file, line, section = code_blocks()
    (folder / "tiny_cnn.py").write_text(file)
    tree = yaml.safe_load((DOCUMENT.parents[1] / "configs" / "digits_resnet.yaml").read_text())
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**tree, **yaml.safe_load(section), "name": "tiny"}))
    (folder / "tiny_project.py").write_text(
        "from dataclasses import replace\n\nfrom my_project import project as mine\n\nmodels = {}\n"
        f"{line}\nproject = replace(mine, models=models)\n"
    )
    command = [sys.executable, "-m", "trainyard", verb, *words]
    environment = {
        **os.environ,
        "TRAINYARD_PROJECT": "tiny_project",
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_example_is_a_kind_of_the_config(tmp_path: Path) -> None:
    resolved = yaml.safe_load(command_line(tmp_path, "config", str(tmp_path / "tiny.yaml"), "model.dropout=0.1"))

    assert {"kind": "tiny_cnn", "width": 16, "dropout": 0.1}.items() <= resolved["model"].items()


@pytest.mark.slow
def test_example_goes_from_a_config_file_to_an_http_answer(tmp_path: Path) -> None:
    words = ["data.limit=800", f"data.cache={tmp_path}/cache", f"out={tmp_path}/runs", "trainer.max_epochs=8",
             "trainer.devices=cpu", "trainer.threads=1", "trainer.loggers=[]"]  # fmt: skip
    run = command_line(tmp_path, "train", str(tmp_path / "tiny.yaml"), *words).splitlines()[-1]

    facts = json.loads((Path(run) / "bundle" / "trainyard.json").read_text())
    assert (facts["model"]["kind"], facts["model"]["width"]) == ("tiny_cnn", 16)
    # Of a model that hardly knows its classes, int8 would be a toss of a coin.
    assert facts["metrics"]["test"]["accuracy"] > 0.85

    formats = ["torchscript", "onnx", "onnx-int8"]
    printed = command_line(tmp_path, "export", run, "--formats", ",".join(formats), "--threads", "1")

    rows = json.loads((Path(printed.splitlines()[-1]) / "export.json").read_text())["formats"]
    assert [row["name"] for row in rows] == ["eager", *formats]
    statuses = {row["name"]: row["status"] for row in rows}
    assert statuses["torchscript"] == statuses["onnx"] == "passed"
    assert statuses["onnx-int8"] in ("passed", "no_gain", "batch_dependent")
    # By a process that knows nothing of the new kind: an export needs no code of the model.
    for format in ("torchscript", "onnx"):
        check_that_it_is_served(Path(run), format)


def check_that_it_is_served(run: Path, format: FormatName) -> None:
    """Over HTTP, in one request, as the document tells; the answers are those of the predictor in this process."""
    predictor = Predictor(open_trusted(run, format), format, threads=1)
    items = [sample.item for sample in golden_samples(predictor.bundle.path)]
    expected = predictor.predict(items)
    with (
        running([f"tiny={run}"], ["--format", format, "--workers", "1", "--threads", "1"]) as server,
        Client(server.inference_url, token_file=server.token_file) as client,
    ):
        answers = client.predict("tiny", items)
    assert len(answers) == len(expected) > 0
    for answer, right in zip(answers, expected, strict=True):
        assert isinstance(answer, Answer)
        assert isinstance(right, Prediction)
        assert (answer.label, answer.model, answer.deployed.format) == (right.label, "tiny", format)
        assert answer.probability == pytest.approx(right.probability, abs=1e-5)


def test_example_refuses_what_it_cannot_do(example: ModelConfig) -> None:
    with pytest.raises(UsageError, match="is for images"):
        example.check(TextsConfig(kind="texts", path="unused"))
    images = ImagesConfig(kind="images", path="unused", image_size=16)
    with pytest.raises(UsageError, match="has no published weights"):
        example.model_copy(update={"pretrained": True}).build(Task(("a", "b"), example.preprocessor(images, [])))
    with pytest.raises(UsageError, match="the nearest is tiny_cnn"):
        example.model_copy(update={"name": "tinycnn"}).check(images)
