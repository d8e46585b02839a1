"""The model card says what is known, shows names as they are, and admits what was not measured."""

import re
from dataclasses import replace

import pytest
import torch
import yaml

from trainyard.data.records import BadExample
from trainyard.data.report import DataReport, Duplicates
from trainyard.evaluation.scores import Scores, score
from trainyard.report.card import CardFacts, model_card

CLASSES = ("bug", "billing")
CONFIG = """\
name: tickets
out: /home/ann/runs
data: {path: /home/ann/tickets.csv, cache: ~/.cache/x, label: topic}
model: {kind: bert, pretrained: /models/minilm}
optim: {lr: 0.001}
"""


def scores(right: int, wrong: int, classes: tuple[str, ...] = CLASSES) -> Scores:
    """Of ``right + wrong`` examples, spread over all classes; the wrong ones are taken for the next class."""
    labels = torch.arange(right + wrong) % len(classes)
    predicted = torch.where(torch.arange(right + wrong) < right, labels, (labels + 1) % len(classes))
    return score(3.0 * torch.nn.functional.one_hot(predicted, len(classes)), labels, classes)


def report(classes: tuple[str, ...] = CLASSES, location: str = "/home/ann/tickets.csv") -> dict[str, object]:
    return DataReport(
        location=location,
        fingerprint="f" * 64,
        classes={name: {"train": 800, "val": 100, "test": 100} for name in classes},
        total=2_005,
        bad=(BadExample("tickets.csv:7", "the text is empty"),) * 5,
        duplicates=Duplicates(3, (("tickets.csv:1", "tickets.csv:9"),) * 3),
        warnings=("3 examples are exact copies of examples in another split",),
    ).to_dict()


FACTS = CardFacts(
    name="tickets",
    modality="text",
    model="bert tiny",
    hugging_face=True,
    classes=CLASSES,
    data=report(),
    test=scores(180, 20),
    val=scores(190, 10),
    temperature=1.375,
    training={"seed": 2024, "epochs": 3, "seconds": 61.26, "world_size": 2, "examples_per_second": 1234.5},
    config=CONFIG,
    environment={"gpu": None, "packages": {"torch": "2.14.1", "numpy": "2.4.6"}},
)


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def code(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, flags=re.DOTALL)


def test_front_matter_is_what_the_hub_reads() -> None:
    header = yaml.safe_load(model_card(FACTS).split("---\n")[1])
    assert header == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["trainyard", "pytorch", "text-classification"],
        "metrics": ["accuracy", "f1"],
    }


def test_sections_are_in_order() -> None:
    titles = re.findall(r"^#+ (.*)$", model_card(FACTS), flags=re.MULTILINE)
    assert titles == ["tickets", "How to use", "Data", "Training", "Metrics", "Calibration", "Limits"]


def test_transformers_is_offered_only_where_it_works() -> None:
    assert "from transformers import pipeline" in model_card(FACTS)
    lstm = model_card(replace(FACTS, hugging_face=False))
    assert "transformers" not in lstm


@pytest.mark.parametrize("modality", ["image", "text"])
def test_snippets_are_python(modality: str) -> None:
    blocks = code(model_card(replace(FACTS, modality=modality)), "python")  # type: ignore[arg-type]
    for block in blocks:
        compile(block, "card", "exec")
    assert ('Path("photo.jpg")' in blocks[0]) == (modality == "image")


def test_data_section_counts() -> None:
    data = section(model_card(FACTS), "Data")
    assert "| location | tickets.csv |" in data
    assert "| bad examples, skipped | 5 (0.25%) |" in data
    assert "| exact copies of an example in another split | 3 |" in data
    assert "| billing | 800 | 100 | 100 |" in data
    assert "| **all** | 1,600 | 200 | 200 |" in data


def test_no_folder_of_the_machine_is_told() -> None:
    card = model_card(FACTS)
    assert not re.search(r"/home|/models|~/", card)
    config = yaml.safe_load(code(card, "yaml")[0])
    assert config["data"] == {"path": "tickets.csv", "cache": "x", "label": "topic"}
    assert config["model"] == {"kind": "bert", "pretrained": "minilm"}
    assert config["optim"] == {"lr": 0.001}


def test_the_config_in_the_facts_of_training_is_told_once_and_without_folders() -> None:
    card = model_card(replace(FACTS, training={**FACTS.training, "config": yaml.safe_load(CONFIG)}))
    assert card == model_card(FACTS)


def test_pairs_are_given_as_a_table() -> None:
    card = model_card(replace(FACTS, config=CONFIG.replace("label: topic", "text: [a, b], pair: true")))
    assert code(card, "bash") == ["trainyard predict FOLDER pairs.csv"]
    assert 'predict([("a text", "another")])' in code(card, "python")[0]
    assert 'classify({"text": "a text", "text_pair": "another"})' in code(card, "python")[1]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("hub:nyu-mll/glue", "hub:nyu-mll/glue"),
        ("embedded:digits", "embedded:digits"),
        ("hub:/home/ann/set", "hub:set"),
    ],
)
def test_location_is_a_name(location: str, shown: str) -> None:
    card = model_card(replace(FACTS, data=report(location=location)))
    assert f"| location | {shown} |" in card


def test_training_section_has_seed_duration_and_environment() -> None:
    training = section(model_card(FACTS), "Training")
    rows = (
        "epochs | 3",
        "seconds | 61.3",
        "world size | 2",
        "seed | 2024",
        "gpu | none",
        "packages | torch 2.14.1, numpy",
    )
    for row in rows:
        assert f"| {row}" in training


def test_metrics_of_both_splits_with_interval() -> None:
    metrics = section(model_card(FACTS), "Metrics")
    assert re.search(r"\| test \| 200 \| 0\.9000 \| 0\.8506 to 0\.9343 \| 0\.9000 \|", metrics)
    assert re.search(r"\| val \| 200 \| 0\.9500 \|", metrics)
    assert "| bug | 0.9000 | 0.9000 | 0.9000 | 100 |" in metrics
    assert "(confusion_matrix.png)" in metrics


def test_temperature_at_a_bound_is_admitted() -> None:
    assert "1.375" in section(model_card(FACTS), "Calibration")
    assert "beyond the allowed range" not in model_card(FACTS)
    assert "beyond the allowed range" in model_card(replace(FACTS, temperature=0.5))


def test_limits_name_small_splits_rough_classes_and_findings() -> None:
    limits = section(model_card(FACTS), "Limits")
    assert "anywhere between 0.851 and 0.934" in limits
    assert "whose own scores are rough" not in limits
    assert "Found in the data: 3 examples are exact copies" in limits
    assert "not measured" in limits
    small = section(model_card(replace(FACTS, test=scores(9, 1))), "Limits")
    assert "Classes with fewer than 20 test examples, whose own scores are rough: bug, billing." in small


def test_large_split_is_not_called_small() -> None:
    assert "is small" not in model_card(replace(FACTS, test=scores(19_500, 500)))


def test_names_do_not_break_the_tables() -> None:
    classes = ("a|b\nc", "<i>_x_*")
    odd = replace(FACTS, classes=classes, data=report(classes), test=scores(30, 2, classes), val=scores(30, 2, classes))
    card = model_card(odd)
    assert r"| a\|b c | 800 |" in card
    assert r"| \<i\>\_x\_\* |" in card


def test_tables_of_many_classes_are_folded() -> None:
    classes = tuple(f"class {i}" for i in range(100))
    many = replace(FACTS, classes=classes, data=report(classes), test=scores(300, 5, classes))
    card = model_card(many)
    assert card.count("<details>") == card.count("</details>") == 2
    assert "class 24 and 75 more." in card
    assert "| class 99 | 800 |" in card
    assert "<details>" not in model_card(FACTS)
