"""The shipped configs reach the accuracy that the README promises of the embedded data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from trainyard.config.data import TextsConfig
from trainyard.config.load import load_experiment
from trainyard.data.load import load_dataset

from my_project.train import train

CONFIGS = Path(__file__).parents[2] / "configs"


def tfidf_macro_f1(cache: Path) -> float:
    """TF-IDF with logistic regression, scikit-learn's defaults, on the tickets' own splits."""
    data = TextsConfig.model_validate({"kind": "texts", "path": "embedded:tickets", "cache": str(cache)})
    splits = load_dataset(data, seed=0).splits
    texts = {split: [str(item) for item in records.items] for split, records in splits.items()}
    labels = {split: records.labels for split, records in splits.items()}
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    model.fit(texts["train"] + texts["val"], [*labels["train"], *labels["val"]])
    return float(f1_score(labels["test"], model.predict(texts["test"]), average="macro"))


def test_the_tickets_are_neither_trivial_nor_hopeless_for_tfidf(tmp_path: Path) -> None:
    assert 0.75 <= tfidf_macro_f1(tmp_path) <= 0.95


@pytest.mark.slow
def test_digits_are_told_apart(tmp_path: Path) -> None:
    metrics = _train("digits_resnet", tmp_path)

    assert metrics["test"]["accuracy"] >= 0.97


@pytest.mark.slow
def test_tickets_are_told_apart_about_as_well_as_by_tfidf(tmp_path: Path) -> None:
    metrics = _train("tickets_bert", tmp_path)

    assert metrics["test"]["macro_f1"] >= 0.80
    assert metrics["test"]["macro_f1"] >= tfidf_macro_f1(tmp_path) - 0.05


def _train(name: str, folder: Path) -> dict[str, dict[str, float]]:
    words = [f"out={folder}/runs", f"data.cache={folder}/cache", "trainer.threads=1"]
    run = train(load_experiment(CONFIGS / f"{name}.yaml", words))
    metrics: dict[str, dict[str, float]] = json.loads((run / "metrics.json").read_text())
    return metrics
