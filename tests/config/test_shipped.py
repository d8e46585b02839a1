"""The shipped configs: each key has a comment, line 1 runs it, and editors find the schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainyard.config.load import load_experiment

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
EXPECTED = {
    "digits_resnet",
    "tickets_bert",
    "cifar10_resnet20",
    "cifar10_resnet18",
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
