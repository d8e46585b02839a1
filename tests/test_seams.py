"""What the project adds to the library is found there: a source, a metric, a section of the config."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from trainyard.base.errors import DataError, UsageError
from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.load import load_experiment, parse_experiment
from trainyard.data.sources import location, read_source

from my_project.metrics import balanced_accuracy
from my_project.train import Config, train

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A database of 60 texts, of which one is empty and one has no label."""
    texts = [(f"{'good' if i % 2 else 'bad'} thing number {i}", str(i % 2)) for i in range(60)]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE examples (body TEXT, team TEXT)")
        database.executemany("INSERT INTO examples VALUES (?, ?)", [*texts[:58], (" ", "1"), ("orphan", None)])
    return tmp_path / "shop.db"


def texts_config(shop: Path, **keys: object) -> TextsConfig:
    return TextsConfig.model_validate(
        {"kind": "texts", "path": f"sqlite:{shop}", "text": "body", "label": "team", **keys}
    )


def test_rows_of_a_database_are_examples_and_bad_ones_are_told(shop: Path) -> None:
    found = read_source(texts_config(shop))

    assert len(found.splits["train"]) == 58
    assert found.splits["train"].items[0] == "bad thing number 0"
    assert [(bad.where, bad.reason) for bad in found.bad] == [
        (f"{shop}, row 59", "empty"),
        (f"{shop}, row 60", "no label"),
    ]


def test_a_database_that_cannot_be_read_is_one_sentence(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such column: subject"):
        read_source(texts_config(shop, text="subject"))
    with pytest.raises(DataError, match="can't be read: unable to open"):
        read_source(texts_config(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(UsageError, match=r"say data\.kind=texts"):
        read_source(ImagesConfig(kind="images", path=f"sqlite:{shop}"))


def test_the_place_of_a_database_is_recorded_from_anywhere(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.parent)

    assert location("sqlite:shop.db") == f"sqlite:{shop}"


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 4)).astype(np.float32), generator.choice(3, 50, p=[0.8, 0.15, 0.05])

    ours = balanced_accuracy(torch.from_numpy(logits[:, :3]), torch.from_numpy(labels))

    assert ours == pytest.approx(balanced_accuracy_score(labels, logits[:, :3].argmax(axis=1)))


def test_a_run_on_a_database_is_judged_by_a_metric_of_the_project(shop: Path, tmp_path: Path) -> None:
    words = [f"data.path=sqlite:{shop}", "data.text=body", "data.label=team", "data.max_bad=0.1", "data.batch_size=8",
             f"data.cache={tmp_path}/cache", "model.vocab_size=200", "model.hidden_size=16", "trainer.max_epochs=1",
             "trainer.monitor=balanced_accuracy", "trainer.loggers=[]", "trainer.threads=1", "trainer.devices=cpu",
             f"out={tmp_path}/runs"]  # fmt: skip
    config = load_experiment(CONFIGS / "tickets_bert.yaml", words)
    assert isinstance(config, Config)

    run = train(config)

    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["test"]["balanced_accuracy"] <= 1
    header, _ = (run / "metrics.csv").read_text().splitlines()
    assert "val_balanced_accuracy" in header.split(",")
    assert "balanced_accuracy" in (run / "bundle" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.monitor=balanced_acuracy"], "did you mean 'balanced_accuracy'"),
        (["data.flip=none"], "there is no key 'data.flip'; did you mean 'augment.flip'"),
        (["data.mixup=0.2"], "there is no key 'data.mixup'; did you mean 'augment.mixup'"),
        (["data.augment=none"], "there is no key 'data.augment'; did you mean 'augment"),
    ],
)
def test_what_is_elsewhere_or_misspelt_names_the_nearest(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_experiment(CONFIGS / "digits_resnet.yaml", words)


def test_texts_are_not_augmented() -> None:
    with pytest.raises(UsageError, match=r"augment is for images: with data\.kind=texts, leave it out"):
        load_experiment(CONFIGS / "tickets_bert.yaml", ["augment.mixup=0.2"])
    assert parse_experiment(load_experiment(CONFIGS / "tickets_bert.yaml").model_dump(mode="json"), "again")
