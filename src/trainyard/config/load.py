"""From a YAML file and ``dotted.key=value`` words to a validated ``Experiment``, with errors that name the fix."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainyard.config.base import Section
from trainyard.config.data import DataConfig, ImagesConfig, TextsConfig
from trainyard.config.experiment import Experiment
from trainyard.config.values import read_value, read_yaml
from trainyard.errors import UsageError
from trainyard.models import model_configs

Tree: TypeAlias = dict[str, object]

ENVIRONMENT_VALUE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
SECTION_KINDS: dict[str, Sequence[type[BaseModel]]] = {"data": (ImagesConfig, TextsConfig), "model": model_configs()}


class _DataOnly(Section):
    data: DataConfig


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads a config file, puts the ``key=value`` words over it, and validates the result.

    Raises:
        UsageError: the file is missing or no YAML mapping, an override isn't ``key=value``, a key doesn't exist (names
            the nearest), a value doesn't fit, or ``${VAR}`` isn't set.
    """
    tree = _read_yaml(path)
    apply_overrides(tree, overrides)
    return parse_experiment(tree, str(path))


def parse_experiment(tree: Mapping[str, object], source: str) -> Experiment:
    """Validates an already read config; ``source`` names it in an error."""
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{source}: " + "; ".join(_sentences(error, tree))) from error


def parse_data(tree: Mapping[str, object]) -> ImagesConfig | TextsConfig:
    """Validates the ``data`` section alone."""
    try:
        return _DataOnly.model_validate(tree).data
    except ValidationError as error:
        raise UsageError("; ".join(_sentences(error, tree))) from error


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
                raise UsageError(f"'{key}': '{section}' is a value, not a section")
            node = cast(Tree, child)
        node[last] = _expand(read_value(value))


def json_schema() -> Tree:
    """The JSON Schema of a config file, for editors."""
    schema = Experiment.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def dump_yaml(experiment: Experiment) -> str:
    """The resolved config as YAML, in the order of the sections."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> Tree:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no config file {path}{_nearest_file(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the config {path} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} isn't valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds no mapping of keys to values")
    return cast(Tree, _expand(tree))


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


def _sentences(error: ValidationError, tree: Mapping[str, object]) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        yield _sentence(detail, tree)


def _sentence(detail: ErrorDetails, tree: Mapping[str, object]) -> str:
    parts = [str(part) for part in detail["loc"]]
    if len(parts) > 1 and parts[0] in SECTION_KINDS:
        del parts[1]  # pydantic puts the section's kind into the path; a user doesn't write it
    key = ".".join(parts)
    match detail["type"]:
        case "extra_forbidden":
            return f"there is no key '{key}'{_nearest_key(key, tree)}"
        case "missing":
            return f"the key '{key}' is missing"
        case "union_tag_not_found":
            return f"the key '{key}.kind' is missing ({_kinds(key)})"
        case "union_tag_invalid":
            return f"'{key}.kind' must be one of {_kinds(key)}"
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
    return f"'{key}': {detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r}"


def _kinds(section: str) -> str:
    return ", ".join(str(model.model_fields["kind"].annotation.__args__[0]) for model in SECTION_KINDS[section])  # type: ignore[union-attr]


def _nearest_key(key: str, tree: Mapping[str, object]) -> str:
    """Looks among all keys for the same last word first (``lr`` -> ``optim.lr``), then for one spelt like it."""
    keys = list(_all_keys(tree))
    last = key.rsplit(".", 1)[-1]
    same = [known for known in keys if known.rsplit(".", 1)[-1] == last]
    near = same or difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not near:
        by_last = {known.rsplit(".", 1)[-1]: known for known in keys}
        near = [by_last[word] for word in difflib.get_close_matches(last, by_last, n=1)]
    return f"; did you mean '{near[0]}'?" if near else f"; the keys here are {', '.join(_siblings(key, keys))}"


def _siblings(key: str, keys: Sequence[str]) -> list[str]:
    section = key.rpartition(".")[0]
    return [known for known in keys if known.rpartition(".")[0] == section]


def _all_keys(tree: Mapping[str, object]) -> Iterator[str]:
    """Every dotted key that this config may have, given the kinds that it chose."""
    for name, field in Experiment.model_fields.items():
        yield name
        section = field.annotation
        for model in SECTION_KINDS.get(name, (section,)):
            chosen = tree.get(name)
            kind = chosen.get("kind") if isinstance(chosen, Mapping) else None
            if isinstance(model, type) and issubclass(model, BaseModel) and _is_kind(model, kind):
                yield from (f"{name}.{child}" for child in model.model_fields)


def _is_kind(model: type[BaseModel], kind: object) -> bool:
    if kind is None or "kind" not in model.model_fields:
        return True
    return kind in getattr(model.model_fields["kind"].annotation, "__args__", ())
