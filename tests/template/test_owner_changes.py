"""Every change that docs/your-project.md shows, made as it stands there, then trained, exported and served for real.

The changes are made in a renamed clone, in the owner's package alone; the page and this test can't differ.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.samples import golden_samples
from trainyard.client.client import Client
from trainyard.client.messages import Answer
from trainyard.inference.predictor import Predictor
from trainyard.torchserve.running import running

pytestmark = pytest.mark.template

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PAGE = (ROOT / "docs" / "your-project.md").read_text(encoding="utf-8")
SHIPPED, PACKAGE = "src/my_project", "src/shop"
TEAMS = {"billing": 0, "technical": 1}
COMMON = ("optim.schedule=inverse_sqrt", "trainer.monitor=worst_recall", "trainer.threads=1", "trainer.devices=cpu")


class Change(NamedTuple):
    """A block of the page.

    Attributes:
        section: The heading that it stands below.
        file: What it changes.
        language: ``python`` is added at the end of the file, ``diff`` changes lines of it.
        code: What stands in the block.
    """

    section: str
    file: str
    language: str
    code: str

    def make(self, folder: Path) -> None:
        """Changes the file, which may be new."""
        path = folder / self.file.replace(SHIPPED, PACKAGE)
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        added = f"{before}\n\n{self.code}" if before else self.code
        path.write_text(self.edited(before) if self.language == "diff" else added, encoding="utf-8")

    def edited(self, before: str) -> str:
        """The file's text with the lines of the block changed."""
        lines = self.code.splitlines(keepends=True)
        old = "".join(line[1:] or line for line in lines if line[0] != "+")
        new = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert before.count(old) == 1, f"{self.section}: what {self.file} is said to have isn't there once:\n{old}"
        return before.replace(old, new)

    def size(self) -> int:
        """How many lines an owner writes, besides imports, texts and empty lines."""
        added = self.code
        if self.language == "diff":
            added = "".join(line[1:] for line in added.splitlines(keepends=True) if line[0] == "+")
        body = re.sub(r'"""[^"]*"""', "", added.split("\n\n\n")[-1])
        return sum(bool(line.strip()) for line in body.splitlines())


def changes() -> Iterator[Change]:
    for section in PAGE.split("\n## ")[1:]:
        for block in re.finditer(r"`(src/my_project/\S+)`:\n\n```(python|diff)\n(.*?)```", section, flags=re.DOTALL):
            yield Change(section.partition("\n")[0], *block.groups())


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints, in which the clone's packages are imported and not the installed ones."""
    # Without git's own variables, which point at the outer repository inside a commit hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, cwd=cwd, env=environment | project(cwd), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def project(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(folder / "src"), "TRAINYARD_PROJECT": "shop", "PYTHON": sys.executable}


def trainyard(folder: Path, *words: str | Path) -> str:
    return run(sys.executable, "-m", "trainyard", *words, cwd=folder)


def git(folder: Path, *words: str) -> str:
    return run("git", "-c", "user.name=Test", "-c", "user.email=test@example.org", *words, cwd=folder)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A renamed clone in which everything has been changed that the page shows; commands are run in it."""
    folder = tmp_path_factory.mktemp("clone")
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not what is deleted but still in the index
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All"]):
        git(folder, *words)
    run("bash", "scripts/rename.sh", "shop", cwd=folder)
    git(folder, "commit", "--quiet", "--message", "Rename")
    for change in changes():
        change.make(folder)
    (folder / "configs" / "schema.json").write_text(trainyard(folder, "config", "--schema"))
    return folder


def train(clone: Path, config: str, *words: str) -> Path:
    out = clone.parent / f"{clone.name}_out"
    words = (*COMMON, f"out={out}/runs", f"data.cache={out}/cache", *words)
    return Path(trainyard(clone, "train", f"configs/{config}.yaml", *words).splitlines()[-1])


@pytest.fixture(scope="module")
def images(clone: Path) -> Path:
    """A run with the model and the augmentation of the page, exported."""
    words = ("model.kind=tiny_cnn", "model.name=tiny_cnn", "augment.brightness=0.2", "trainer.max_epochs=8")
    run = train(clone, "digits_resnet", *words)
    trainyard(clone, "export", run, "--formats", "onnx,packed", "--threads", "1")
    return run


@pytest.fixture(scope="module")
def texts(clone: Path) -> Path:
    """A run on the rows of a database, exported."""
    run = train(clone, "tickets_bert", f"data.path=orders:{orders(clone.parent)}", "trainer.max_epochs=4")
    trainyard(clone, "export", run, "--formats", "packed", "--threads", "1")
    return run


def orders(folder: Path) -> Path:
    """Writes the database of the page: the shipped tickets of two teams."""
    path = folder / "shop.db"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT, team INTEGER, split TEXT)")
        database.executemany("INSERT INTO teams (name, id) VALUES (?, ?)", TEAMS.items())
        for split in ("train", "test"):
            with (ROOT / f"src/trainyard/data/tickets/{split}.csv").open(encoding="utf-8") as file:
                rows = [
                    (row["text"], TEAMS[row["label"]], split) for row in csv.DictReader(file) if row["label"] in TEAMS
                ]
            database.executemany("INSERT INTO orders (note, team, split) VALUES (?, ?, ?)", rows)
    return path


def facts(run: Path) -> dict[str, dict[str, object]]:
    return json.loads((run / "bundle" / "trainyard.json").read_text())


def test_each_change_takes_at_most_ten_lines() -> None:
    sizes: dict[str, int] = {}
    for change in changes():
        if change.file != f"{SHIPPED}/__init__.py":  # a line that names it
            sizes[change.section] = sizes.get(change.section, 0) + change.size()
    assert len(sizes) == 8, "a block was not found"
    assert max(sizes.values()) <= 10, sizes


@pytest.mark.slow
def test_the_owners_package_alone_was_changed(clone: Path) -> None:
    changed = {line.split()[-1] for line in git(clone, "status", "--porcelain", "--untracked-files=all").splitlines()}
    assert changed == {change.file.replace(SHIPPED, PACKAGE) for change in changes()} | {"configs/schema.json"}
    run("ruff", "check", PACKAGE, cwd=clone)
    run("ruff", "format", "--check", PACKAGE, cwd=clone)


@pytest.mark.slow
def test_the_owners_tests_pass(clone: Path) -> None:
    # Those that look at the whole package; the others train again.
    run(sys.executable, "-m", "pytest", "tests/test_project.py", "tests/test_schema.py", cwd=clone)


@pytest.mark.slow
def test_the_model_learns_with_the_augmentation(images: Path) -> None:
    assert facts(images)["model"]["kind"] == "tiny_cnn"
    assert facts(images)["metrics"]["test"]["accuracy"] > 0.85
    assert "brightness: 0.2" in (images / "config.yaml").read_text()


@pytest.mark.slow
def test_the_rows_of_the_database_are_learnt(texts: Path) -> None:
    assert facts(texts)["labels"] == sorted(TEAMS)
    assert facts(texts)["metrics"]["test"]["accuracy"] > 0.8


@pytest.mark.slow
def test_the_metric_is_everywhere(images: Path) -> None:
    measured = json.loads((images / "metrics.json").read_text())["test"]["worst_recall"]
    assert 0.5 < measured < 1
    with (images / "metrics.csv").open() as file:
        epochs = [float(row["val_worst_recall"]) for row in csv.DictReader(file)]
    events = EventAccumulator(str(next((images / "tensorboard").rglob("events.out.*")).parent)).Reload()
    assert [event.value for event in events.Scalars("val/worst_recall")] == pytest.approx(epochs)
    assert json.loads((images / "metrics.json").read_text())["val"]["worst_recall"] > epochs[0]
    card = (images / "bundle" / "README.md").read_text()
    assert "worst_recall" in card
    assert f"Of the class that does worst, {measured:.0%} of the examples are found." in card


@pytest.mark.slow
def test_the_format_is_gated_timed_shown_and_recommended(images: Path, texts: Path) -> None:
    for run in (images, texts):
        export = run / "exports" / "latest"
        written = json.loads((export / "export.json").read_text())
        row = written["formats"][-1]
        assert (row["name"], row["status"], row["file"]) == ("packed", "passed", "model.onnx.gz")
        assert row["throughput"] > 0
        assert all(milliseconds > 0 for milliseconds in row["latency_ms"].values())
        assert written["recommended"] in ("onnx", "packed")
        assert "packed" in (export / "export.md").read_text()
        assert (export / "export.png").stat().st_size > 0
    assert "**packed** (recommended)" in (texts / "exports" / "latest" / "export.md").read_text()


@pytest.mark.slow
def test_an_export_of_the_library_needs_no_code_of_the_model(images: Path) -> None:
    sample = golden_samples(Bundle.open(images).path)[0]
    [answer] = Predictor(images, "onnx", threads=1).predict([sample.item])  # in this process, which lacks it
    assert answer.label == sample.label


@pytest.mark.slow
def test_loss_and_schedule_are_those_of_the_page(clone: Path) -> None:
    script = """
import torch
from trainyard.models.classifier import ImageClassifier
from shop.task import OptimConfig, Task
network = torch.nn.Linear(2, 2)
model = ImageClassifier(network, [network], (0.5,) * 3, (0.5,) * 3)
task = Task(model, OptimConfig(schedule="inverse_sqrt", warmup=0.1))
print(task.loss(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1])).item())
print(task.schedule(39, 100))
"""
    loss, factor = map(float, run(sys.executable, "-c", script, cwd=clone).split())
    probabilities = [1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))]
    assert loss == pytest.approx(sum(-((1 - p) ** 2) * math.log(p) for p in probabilities) / 2, rel=1e-5)
    assert factor == pytest.approx(math.sqrt(10 / 40))


@pytest.mark.slow
def test_the_augmentation_changes_the_brightness(clone: Path) -> None:
    script = """
import numpy, torch
from shop.augment import Augmentation, AugmentConfig
images = torch.full((64, 3, 8, 8), 100, dtype=torch.uint8)
print(*Augmentation(AugmentConfig(brightness=0.2), 8, seed=1)(images, numpy.arange(64), epoch=0)[:, 0, 0, 0].tolist())
"""
    values = [float(word) for word in run(sys.executable, "-c", script, cwd=clone).split()]
    assert 80 <= min(values) < 90
    assert 110 < max(values) <= 120


@pytest.mark.slow
def test_predict_archive_and_serve_answer_with_it(clone: Path, images: Path, texts: Path, tmp_path: Path) -> None:
    photo, note = (golden_samples(Bundle.open(run).path)[0] for run in (images, texts))
    assert isinstance(photo.item, bytes)
    (tmp_path / "photo.png").write_bytes(photo.item)
    assert photo.label in trainyard(clone, "predict", images, tmp_path / "photo.png", "--format", "packed")
    assert note.label in trainyard(clone, "predict", texts, str(note.item))
    archive = tmp_path / "digits.mar"
    trainyard(clone, "archive", images, "--format", "packed", "--name", "digits", "--out", archive)
    with ZipFile(archive) as content:
        assert any(name.endswith("/model.onnx.gz") for name in content.namelist())
    with (
        running([archive, f"teams={texts}"], ["--workers", "1", "--threads", "1"], project(clone)) as server,
        Client(server.inference_url, token_file=server.token_file) as client,
    ):
        for model, sample in (("digits", photo), ("teams", note)):
            [answer] = client.predict(model, [sample.item])
            assert isinstance(answer, Answer)
            assert (answer.label, answer.deployed.format) == (sample.label, "packed")
            assert answer.probability == pytest.approx(max(sample.probabilities), abs=1e-4)
