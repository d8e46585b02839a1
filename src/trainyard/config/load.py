"""From a YAML file and ``dotted.key=value`` words to a validated ``Experiment``, with errors that name the fix."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import yaml
from pydantic import BaseModel, ValidationError

from trainyard.base.errors import UsageError
from trainyard.config.data import DataConfig, ImagesConfig, TextsConfig
from trainyard.config.errors import kind_sentence, section_sentence, sentences
from trainyard.config.experiment import Experiment, Settings
from trainyard.config.kinds import experiment_class, kinds, model_class
from trainyard.config.section import Section
from trainyard.config.values import read_value, read_yaml

if TYPE_CHECKING:
    from trainyard.models.base import ModelConfig

Tree: TypeAlias = dict[str, object]

ENVIRONMENT_VALUE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


LAST = ("trainer", "bundle")
"""Sections that a file has after those of the model."""


class _DataOnly(Section):
    data: DataConfig


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a config file, puts the ``key=value`` words over it, and validates the result.

    Raises:
        UsageError: the file is missing or no YAML mapping, an override isn't ``key=value``, a key doesn't exist (names
            the nearest), a value doesn't fit, or ``${VAR}`` isn't set.
    """
    return parse_experiment(_read_tree(path, overrides), str(path))


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """As ``load_experiment``, but the library's sections alone: imports neither torch nor the project's code."""
    return parse_settings(_read_tree(path, overrides), str(path))


def parse_experiment(tree: Mapping[str, object], source: str) -> Experiment:
    """Validates an already read config; ``source`` names it in an error.

    The library's own sections come first, so that a slip in them is answered before the project's code is imported.
    """
    parse_settings(tree, source)
    experiment = experiment_class()
    with _explained(tree, experiment, source):
        return experiment.model_validate({**tree, "model": _model(tree, source)})


def parse_settings(tree: Mapping[str, object], source: str) -> Settings:
    """Validates the library's sections of a config, and leaves the others alone."""
    with _explained(tree, Settings, source):
        return Settings.model_validate({key: value for key, value in tree.items() if key in Settings.model_fields})


def _model(tree: Mapping[str, object], source: str) -> ModelConfig:
    """The ``model`` section, read by the class of its kind alone."""
    section = tree.get("model")
    if not isinstance(section, dict):
        raise UsageError(f"{source}: {section_sentence('model', section)}")
    if section.get("kind") not in kinds():
        raise UsageError(f"{source}: {kind_sentence('model', section, kinds())}")
    model = model_class(section["kind"])
    with _explained(tree, model, source, prefix=("model",)):
        return model.model_validate(section)


@contextlib.contextmanager
def _explained(
    tree: Mapping[str, object], model: type[BaseModel], source: str, prefix: tuple[str, ...] = ()
) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise UsageError(f"{source}: " + "; ".join(sentences(error, tree, model, prefix))) from error


def parse_data(tree: Mapping[str, object]) -> ImagesConfig | TextsConfig:
    """Validates the ``data`` section alone."""
    try:
        return _DataOnly.model_validate(tree).data
    except ValidationError as error:
        raise UsageError("; ".join(sentences(error, tree, _DataOnly))) from error


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> None:
    """Sets each ``dotted.key=value`` in ``tree``; the value is read by ``read_value`` (``true``, ``3``, ``[a, b]``).

    Raises:
        UsageError: a word isn't ``key=value``.
    """
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"'{word}' isn't key=value, as in trainer.max_epochs=3")
        node = tree
        *sections, last = key.split(".")
        for section in sections:
            child = node.setdefault(section, {})
            if not isinstance(child, dict):
                raise UsageError(f"'{key}': '{section}' is a value, not a section with keys; write {section}=...")
            node = cast(Tree, child)
        node[last] = _expand(read_value(value))


def dump_yaml(experiment: Experiment) -> str:
    """The resolved config as YAML, in the order of the sections."""
    tree = experiment.model_dump(mode="json")
    last = {key: tree.pop(key) for key in LAST if key in tree}
    return yaml.safe_dump({**tree, **last}, sort_keys=False, allow_unicode=True)


def _read_tree(path: Path, overrides: Sequence[str]) -> Tree:
    try:
        tree = read_yaml(read_text(path))
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise UsageError(f"{path} isn't valid YAML; mend it, or put the value in quotes: {where}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds no keys with values; write it like configs/digits_resnet.yaml")
    expanded = cast(Tree, _expand(tree))
    apply_overrides(expanded, overrides)
    return expanded


def read_text(path: Path) -> str:
    """A config as it is written, line ends included.

    Raises:
        UsageError: it is missing, or can't be read.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise UsageError(f"there is no config file {path}{_nearest_file(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the config {path} can't be read ({error}): give a UTF-8 file that you may read") from error


def _nearest_file(path: Path) -> str:
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.y*ml")], n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _expand(value: object) -> object:
    """Replaces ``${VAR}`` and ``${VAR:-default}`` in all strings; one that is nothing else gets the value's type."""
    if isinstance(value, dict):
        return {key: _expand(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_expand(child) for child in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    text = ENVIRONMENT_VALUE.sub(_environment_value, value)
    return read_value(text) if ENVIRONMENT_VALUE.fullmatch(value) else text


def _environment_value(match: re.Match[str]) -> str:
    value = os.environ.get(match["name"]) or match["default"]
    if value is None:
        raise UsageError(
            f"the config wants the environment variable {match['name']}; set it, or write a default: "
            f"${{{match['name']}:-default}}"
        )
    return value


def flatten(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    """A config's values by their dotted keys."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
