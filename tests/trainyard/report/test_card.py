"""The model card comes from the project's template, and no run is lost for it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from trainyard.base.environment import describe_environment
from trainyard.base.errors import UsageError
from trainyard.base.project import Project
from trainyard.config.experiment import Experiment
from trainyard.preprocess.base import Kind
from trainyard.report import filling
from trainyard.report.card import CardFacts, check_template, made_up_facts, model_card
from trainyard.training.preflight import preflight

CONFIG = """\
name: tickets
data: {kind: texts, path: /home/ann/tickets.csv, label: topic}
"""
CLASSES = ("a|b\nc", "<i>_x_*")


def facts(modality: Kind = "text", config: str = CONFIG) -> CardFacts:
    return made_up_facts(config, modality, CLASSES)


def code(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project's templates, which is empty."""
    monkeypatch.setattr(filling, "find_project", lambda: Project("trainyard", templates=str(tmp_path)))
    return tmp_path


def fill(templates: Path, text: str, **changed: object) -> str:
    (templates / "model_card.md.j2").write_text(text)
    return model_card(replace(facts(), **changed))  # type: ignore[arg-type]


def test_without_a_template_of_the_project_the_card_is_plain() -> None:
    card = model_card(facts())
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-classification"
    assert r"2 classes: a\|b c, \<i\>\_x\_\*." in card
    assert "| accuracy | 1.0000 | 1.0000 |" in card
    assert re.findall(r"^#+ (.*)$", card, flags=re.MULTILINE) == ["made up", "How to use", "Metrics"]


def test_without_a_project_the_card_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    with_empty_folder = model_card(facts())
    monkeypatch.setattr(filling, "find_project", lambda: None)
    assert model_card(facts()) == with_empty_folder


def test_the_projects_template_is_filled_in(templates: Path) -> None:
    card = fill(templates, "# {{ name }}\n{% for one in classes %}\n- {{ one | markdown }}\n{% endfor %}\n")
    assert card == "# made up\n- a\\|b c\n- \\<i\\>\\_x\\_\\*\n"


def test_a_part_of_the_librarys_is_replaced_by_one_of_the_projects(templates: Path) -> None:
    (templates / "usage.md.j2").write_text("Ask {{ name }}.\n")
    assert "\nAsk made up.\n" in model_card(facts())


def test_a_template_knows_the_metrics_that_the_project_adds(templates: Path) -> None:
    (templates / "model_card.md.j2").write_text("{{ metrics.test.kappa }}")
    check_template(CONFIG, "text", ["kappa"])
    with pytest.raises(UsageError, match="kappa"):
        check_template(CONFIG, "text")


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("{{ nmae }}", "'nmae' is undefined"),
        ("{{ config.data.nothing }}", "has no attribute 'nothing'"),
        ("{% for %}", "Expected an expression"),
        ("{{ name | shout }}", "No filter named 'shout'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '%d' % name }}", "a real number is required"),
        ('{% include "absent.md.j2" %}', "absent.md.j2"),
    ],
)
def test_a_mistake_is_told_at_the_start_and_costs_no_run_at_the_end(
    mistake: str, reason: str, templates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = model_card(facts())
    file = templates / "model_card.md.j2"
    with caplog.at_level(logging.WARNING):
        assert fill(templates, f"# {{{{ name }}}}\n\n{mistake}\n") == plain
    with pytest.raises(UsageError, match="the model card's template has a mistake") as raised:
        check_template(CONFIG, "text")

    assert f"{file}, line 3: " in str(raised.value)
    assert reason in str(raised.value)
    assert str(raised.value) in caplog.text
    assert "\n" not in str(raised.value)


def test_a_mistake_that_only_many_classes_reach_is_told_at_the_start(templates: Path) -> None:
    (templates / "model_card.md.j2").write_text("{% if classes | length > 25 %}{{ nmae }}{% endif %}")
    with pytest.raises(UsageError, match="line 1: 'nmae' is undefined"):
        check_template(CONFIG, "text")


def test_a_folder_of_templates_that_is_not_there_is_told(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "find_project", lambda: Project("trainyard", templates="absent"))
    with pytest.raises(UsageError, match=r"the folder .*trainyard/absent, .* is not there"):
        check_template(CONFIG, "text")


def test_no_run_starts_with_a_mistake_in_the_template(
    templates: Path, digits_experiment: Callable[[], Experiment]
) -> None:
    (templates / "model_card.md.j2").write_text("{{ config.data.nothing }}")
    with pytest.raises(UsageError, match="line 1: .* has no attribute 'nothing'"):
        preflight(digits_experiment())


@pytest.mark.parametrize("modality", ["image", "text"])
def test_snippets_are_python(modality: Kind) -> None:
    blocks = code(model_card(facts(modality)), "python")
    for block in blocks:
        compile(block, "card", "exec")
    assert ('Path("photo.jpg")' in blocks[0]) == (modality == "image")


def test_transformers_is_offered_only_where_it_works() -> None:
    assert "from transformers import pipeline" in model_card(facts())
    assert "transformers" not in model_card(replace(facts(), hugging_face=False))


def test_pairs_are_given_as_a_table() -> None:
    card = model_card(facts(config=CONFIG.replace("label: topic", "text: [a, b], pair: true")))
    assert code(card, "bash") == ["trainyard predict FOLDER pairs.csv"]
    assert 'predict([("a text", "another")])' in code(card, "python")[0]
    assert 'classify({"text": "a text", "text_pair": "another"})' in code(card, "python")[1]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/home/ann/tickets.csv", "tickets.csv"),
        ("hub:nyu-mll/glue", "hub:nyu-mll/glue"),
        ("embedded:digits", "embedded:digits"),
        ("hub:/home/ann/set", "hub:set"),
        ("letters:/home/ann/letters.json", "letters:letters.json"),  # a project's own source
        ("https://example.com/set", "https://example.com/set"),
    ],
)
def test_location_is_a_name(location: str, shown: str, templates: Path) -> None:
    assert fill(templates, "{{ data.location }}", data={**facts().data, "location": location}) == shown


def test_the_config_has_no_folders_and_is_told_once(templates: Path) -> None:
    config = "{name: x, out: /home/ann/runs, data: {path: [~/a, b/c]}, optim: {lr: 0.001}}"
    training = {"seed": 1, "config": yaml.safe_load(config)}
    card = fill(templates, "{{ config | yaml }}\n{{ training }}", config=config, training=training)
    assert card == "name: x\nout: runs\ndata:\n  path:\n  - a\n  - b/c\noptim:\n  lr: 0.001\n{'seed': 1}"


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "none"), (61.26, "61.3"), (3, "3"), ({"torch": "2.14.1", "numpy": 2}, "torch 2.14.1, numpy 2")],
)
def test_facts_are_put_into_words(value: object, words: str, templates: Path) -> None:
    assert fill(templates, "{{ training.fact | words }}", training={"fact": value}) == words


def test_made_up_facts_are_those_that_a_run_has() -> None:
    assert facts().environment.keys() == describe_environment().keys()
