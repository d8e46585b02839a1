"""The model card's template says what is known, shows names as they are, and admits what was not measured."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import yaml

from trainyard.base.project import require_project
from trainyard.heads.scores import Scores
from trainyard.heads.single_label import SingleLabel
from trainyard.preprocess.base import Kind
from trainyard.report.card import CardFacts, check_template, made_up_facts, model_card

CONFIG = """\
name: tickets
data: {path: /home/ann/tickets.csv, cache: ~/.cache/x, label: topic}
model: {kind: bert, pretrained: /models/minilm}
optim: {lr: 0.001}
"""
METRICS = dict.fromkeys(require_project().metrics, 0.5)


def facts(*classes: str, modality: Kind = "text", temperature: float = 1.375, config: str = CONFIG) -> CardFacts:
    made = made_up_facts(config, modality, classes or ("bug", "billing"), temperature)
    return replace(made, test=replace(made.test, metrics=METRICS), val=replace(made.val, metrics=METRICS))


def scores(right: int, wrong: int) -> Scores:
    """Of two classes; the wrong ones are taken for the other."""
    labels = torch.arange(right + wrong) % 2
    predicted = torch.where(torch.arange(right + wrong) < right, labels, 1 - labels)
    measured = SingleLabel().scores(3.0 * torch.nn.functional.one_hot(predicted, 2), labels, ("bug", "billing"))
    return replace(measured, metrics=METRICS)


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def code(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, flags=re.DOTALL)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_it_has_no_mistake(modality: Kind) -> None:
    check_template(CONFIG, modality, METRICS)


def test_it_opens_with_what_the_hub_reads() -> None:
    assert yaml.safe_load(model_card(facts()).split("---\n")[1]) == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["trainyard", "pytorch", "text-classification"],
        "metrics": ["accuracy", "f1"],
    }


def test_sections_are_in_order() -> None:
    titles = re.findall(r"^#+ (.*)$", model_card(facts()), flags=re.MULTILINE)
    assert titles == ["made up", "How to use", "Data", "Training", "Metrics", "Calibration", "Limits"]


def test_no_folder_of_the_machine_is_told() -> None:
    card = model_card(facts())
    assert not re.search(r"/home|/models|~/", card)
    assert yaml.safe_load(code(card, "yaml")[0])["data"] == {"path": "tickets.csv", "cache": "x", "label": "topic"}


def test_names_do_not_break_the_tables() -> None:
    card = model_card(facts("a|b\nc", "<i>_x_*", "{{ 7 * 7 }}"))
    assert card.count("\n| a\\|b c | ") == 2
    assert card.count("\n| \\<i\\>\\_x\\_\\* | ") == 2
    assert "{{ 7 \\* 7 }}" in card, "a name is no template"


def test_counts_and_scores_are_told() -> None:
    card = model_card(replace(facts(), test=scores(180, 20), val=scores(190, 10)))
    assert "| bad examples, skipped | 1 (1.00%) |" in section(card, "Data")
    assert "| billing | 8 | 2 | 2 |\n| **all** | 16 | 4 | 4 |" in section(card, "Data")
    assert "| test | 200 | 0.9000 | 0.8506 to 0.9343 | 0.9000 |" in section(card, "Metrics")
    assert "| bug | 0.9000 | 0.9000 | 0.9000 | 100 |" in section(card, "Metrics")
    assert "anywhere between 0.851 and 0.934" in section(card, "Limits")
    assert "are rough" not in card


def test_it_says_which_answers_are_uncertain() -> None:
    made = facts()
    assert made.certainty
    said = section(model_card(made), "Calibration")
    assert "below 0.9000 are marked as uncertain, so that 98 % of the others are right" in said
    assert "50.0 % are certain, with an accuracy of 1.0000." in said
    none = made.certainty.model_copy(update={"threshold": None})
    assert "each is marked as uncertain" in model_card(replace(made, certainty=none))
    assert "uncertain" not in model_card(replace(made, certainty=None))


def test_what_is_doubtful_is_admitted() -> None:
    limits = section(model_card(facts()), "Limits")
    assert "Classes with fewer than 20 test examples, whose own scores are rough: bug, billing." in limits
    assert "Found in the data: a warning." in limits
    assert "beyond the allowed range" in model_card(facts(temperature=0.5))
    assert "beyond the allowed range" not in model_card(facts())
    assert "is small" not in model_card(replace(facts(), test=scores(19_500, 500)))


def test_tables_of_many_classes_are_folded() -> None:
    card = model_card(facts(*(f"class {i}" for i in range(100))))
    assert card.count("<details>") == card.count("</details>") == 2
    assert "class 24 and 75 more." in card
    assert "| class 99 | 8 |" in card
    assert "<details>" not in model_card(facts())
