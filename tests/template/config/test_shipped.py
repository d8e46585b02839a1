"""The shipped configs: each key has a comment, line 1 runs it, and editors find the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from trainyard.config.load import load_experiment

Marked = Callable[[object], list[str]]

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
EXPECTED = {
    "digits_resnet",
    "tickets_bert",
    "cifar10_resnet20",
    "cifar10_resnet18",
    "cifar10_resnet18_224",
    "imagefolder_resnet50",
    "sst2_bert",
    "csv_bert",
    "agnews_bert",
}


def test_all_are_there() -> None:
    assert {path.stem for path in CONFIGS} == EXPECTED


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_experiment(path).name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_line_1_runs_it_and_line_2_names_the_schema(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()

    assert first.startswith("# ")
    assert f"scripts/train.sh configs/{path.name}" in first
    assert second == "# yaml-language-server: $schema=schema.json"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_has_a_comment(path: Path) -> None:
    """A section's own line needs none; a value's does."""
    lines = [line for line in path.read_text().splitlines()[2:] if line.strip()]

    bare = [line for line in lines if not line.endswith(":") and "#" not in line]
    assert bare == []
    assert isinstance(yaml.safe_load("\n".join(lines)), dict)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_an_editor_marks_nothing_in_it(path: Path, marked: Marked) -> None:
    """Editors check the file as it is written, with its ``${VARIABLES}``."""
    assert marked(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("trainer", "precision", "64"),
        ("trainer", "precision", "${PRECISION"),
        ("trainer", "max_epochs", 0),
        ("trainer", "max_epochs", "three"),
        ("trainer", "compile", 1),
        ("trainer", "devices", "gpu"),
        ("trainer", "epochs", 3),
        ("data", "image_size", 2049),
        ("model", "kind", "cnn"),
    ],
)
def test_an_editor_marks_a_mistake(section: str, key: str, value: object, marked: Marked) -> None:
    tree = yaml.safe_load((ROOT / "configs" / "digits_resnet.yaml").read_text())
    tree[section][key] = value

    assert marked(tree) != []


@pytest.mark.parametrize("value", ["${X}", "${EPOCHS:-3}", 3])
@pytest.mark.parametrize("key", ["max_epochs", "save_every", "devices"])
def test_an_editor_takes_a_number_or_a_variable(key: str, value: object, marked: Marked) -> None:
    tree = yaml.safe_load((ROOT / "configs" / "digits_resnet.yaml").read_text())
    tree["trainer"][key] = value
    tree["trainer"]["compile"] = "${COMPILE:-false}"
    tree["trainer"]["precision"] = 32

    assert marked(tree) == []
