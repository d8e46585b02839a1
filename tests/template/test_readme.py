"""The commands of the README and its pages: configs and overrides are valid, verbs, options and files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import yaml
from tables import ALL, FILES
from typer.main import get_command

from trainyard.artifacts.export_record import BatchInvariance, ExportFacts, FormatRow, Latency, Status
from trainyard.cli import app
from trainyard.client.client import Client
from trainyard.config.load import load_experiment
from trainyard.config.schema import json_schema
from trainyard.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXPORTS = (ROOT / "docs" / "exports.md").read_text()
FIGURES = (ROOT / "docs" / "figures.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for page in (README, EXPORTS)
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line.partition("#")[0].strip()
]


def words_after_environment(command: str) -> list[str]:
    words = shlex.split(command)
    return words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_exists(command: str) -> None:
    program, *words = words_after_environment(command)
    if "/" not in program:  # our own command, whatever it is called
        verb, *words = words
        known = get_command(app).commands[verb]  # type: ignore[attr-defined]
        options = {option for parameter in known.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
    else:
        assert (ROOT / program).is_file(), program


@pytest.mark.parametrize("command", [command for command in COMMANDS if "configs/" in command])
def test_its_config_and_overrides_are_valid(command: str) -> None:
    words = words_after_environment(command)
    config = next(word for word in words if word.startswith("configs/"))

    assert load_experiment(ROOT / config, [word for word in words if "=" in word]).name == Path(config).stem


def test_the_example_config_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(example)

    assert load_experiment(path).name == "mine"


def test_every_shipped_config_is_in_the_table() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"`{path.stem}`" in README


def test_the_keys_that_it_names_exist() -> None:
    schema = json_schema()
    known = {key for section in schema["$defs"].values() for key in section.get("properties", {})}
    named = {match[1] for match in re.finditer(r"`(?:data|model|optim|trainer|bundle)\.(\w+)", README)}

    assert named
    assert named <= known


def test_the_python_examples_are_code_with_our_names() -> None:
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(example, "README.md", "exec")
    assert hasattr(Predictor, "predict")
    assert hasattr(Client, "predict")


def test_the_page_on_exports_tells_of_every_format_status_and_key() -> None:
    named = set(re.findall(r"`([\w.-]+)`", EXPORTS))
    keys = {*ExportFacts.model_fields, *FormatRow.model_fields, *Latency.model_fields, *BatchInvariance.model_fields}

    assert named >= {*ALL, *get_args(Status), *FILES.values(), *keys}
    assert len(EXPORTS.splitlines()) < 120


@pytest.mark.parametrize("page", [README, FIGURES], ids=["README", "figures"])
def test_the_files_that_it_names_are_there(page: str) -> None:
    named = set(re.findall(r"\b(?:benchmarks|configs|docs|scripts|src|tests)/[\w./-]+\.(?:md|py|sh|yaml)\b", page))

    assert named
    assert not [file for file in named - {"configs/mine.yaml"} if not (ROOT / file).is_file()]


def test_each_figure_has_its_command_and_the_readme_has_none_of_its_own() -> None:
    row = re.compile(r"^\| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
    _, *rows = row.findall(FIGURES)
    _, *few = row.findall(README.partition("\n## Figures\n")[2].partition("\n## ")[0])

    assert all("`" in command or command == "the same" for _, _, command in rows)
    assert few
    assert {(what, got) for what, got, _ in few} < {(what, got) for what, got, _ in rows}
    assert all("`" in command for _, _, command in few)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250
    assert yaml.safe_load((ROOT / "configs" / "digits_resnet.yaml").read_text())["name"] in README
