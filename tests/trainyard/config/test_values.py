"""What a value is read as: in files, in words, and in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainyard.base.errors import UsageError
from trainyard.config.experiment import Experiment
from trainyard.config.load import dump_yaml, load_experiment
from trainyard.config.values import read_value, read_yaml

TEXTS = """\
name: trial
data: {kind: texts, path: "${DATA:-a.csv}"}
model: {kind: encoder}
"""
TEXT_VALUES = [
    "*.csv", "[abc", "{abc", "my data #2", "2024-01-31", "2024", "01", "1e3", "1.50", "1.0", "-0", "1_000", "0x1F",
    "no", "yes", "on", "off", "y", "a: b", "a:b", "- a", "@a", "%a", "`a`", "&a", "!a", "|", ">", "?", '"a', "it's",
    '"a"', r"C:\data\new", "nan", "inf", "1:30", "a, b", "<<", "=", "~/data", " a ",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(TEXTS)
    return path


def read_back(experiment: Experiment, folder: Path) -> Experiment:
    saved = folder / "saved.yaml"
    saved.write_text(dump_yaml(experiment))
    return load_experiment(saved)


@pytest.mark.parametrize("text", TEXT_VALUES)
def test_text_stays_the_text_it_is(text: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_word = load_experiment(config, [f"data.path={text}"])
    monkeypatch.setenv("DATA", text)
    by_variable = load_experiment(config)

    assert by_word.data.path == text
    assert by_variable == by_word == read_back(by_word, tmp_path)


@pytest.mark.parametrize("column", ["no", "yes", "on", "off", "01", "1e3", "2.0", "2024-01-31", "a: b", "nan"])
def test_a_column_may_be_called_so(column: str, config: Path, tmp_path: Path) -> None:
    by_word = load_experiment(config, [f"data.label={column}"])
    in_list = load_experiment(config, [f"data.text=[{column.replace(': ', ':')}, title]"])
    config.write_text(TEXTS.replace("path:", f"label: {column.replace(': ', ':')}, path:"))

    assert by_word.data.label == column
    assert in_list.data.model_dump()["text"] == [column.replace(": ", ":"), "title"]
    assert load_experiment(config).data.label == column.replace(": ", ":")
    assert read_back(by_word, tmp_path) == by_word


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("0", 0), ("-3", -3), ("0.25", 0.25),
     ("[a, no, 01, 1, true]", ["a", "no", "01", 1, True]), ("{a: 1}", {"a": 1}), ("[!!int x]", "[!!int x]"),
     ("['1', \"no\"]", ["1", "no"]), ("[", "["), ("[]", [])],
)  # fmt: skip
def test_what_is_more_than_text(text: str, value: object) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_in_a_file_quotes_make_text_and_anchors_merge() -> None:
    read = read_yaml("a: '1'\nb: no\nc: &c {d: 1}\ne: {<<: *c, f: 2.5}\ng:\nh: |\n  1\n")

    assert read == {"a": "1", "b": "no", "c": {"d": 1}, "e": {"d": 1, "f": 2.5}, "g": None, "h": "1\n"}
    with pytest.raises(yaml.YAMLError):
        read_yaml("a: !!int x")


@given(st.text())
def test_no_text_is_an_error_and_a_number_is_its_text(text: str) -> None:
    value = read_value(text)

    if isinstance(value, int | float) and not isinstance(value, bool):
        assert str(value) == text


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [("optim.lr=3e-4", "lr", 3e-4), ("optim.lr=.5", "lr", 0.5), ("optim.clip=null", "clip", None)],
)  # fmt: skip
def test_keys_that_want_no_text_take_every_spelling(word: str, key: str, value: object, config: Path) -> None:
    assert load_experiment(config, [word]).optim.model_dump()[key] == value


def test_a_name_and_a_folder_may_be_numbers(config: Path) -> None:
    experiment = load_experiment(config, ["name=2024", "out=2025"])

    assert (experiment.name, experiment.out) == ("2024", Path("2025"))
    with pytest.raises(UsageError, match="'name' must be text .* not null"):
        load_experiment(config, ["name=null"])


def test_precision_may_be_the_number_32(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_word = load_experiment(config, ["trainer.precision=32"])
    config.write_text(TEXTS + "trainer: {precision: 32}\n")
    by_file = load_experiment(config)
    config.write_text(TEXTS + "trainer: {precision: '${PRECISION:-bf16-mixed}'}\n")
    assert load_experiment(config).trainer.precision == "bf16-mixed"
    monkeypatch.setenv("PRECISION", "32")

    assert [each.trainer.precision for each in (by_word, by_file, load_experiment(config))] == ["32"] * 3
    assert "precision: '32'" in dump_yaml(by_word)
    with pytest.raises(UsageError, match=r"'trainer\.precision'"):
        load_experiment(config, ["trainer.precision=64"])
