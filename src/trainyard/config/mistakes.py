"""What a config's mistakes are called: one sentence for each key, with the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainyard.config.data import ImagesConfig, TextsConfig
from trainyard.config.experiment import Experiment
from trainyard.config.schema import describe
from trainyard.models import model_configs

SECTION_KINDS: dict[str, Sequence[type[BaseModel]]] = {"data": (ImagesConfig, TextsConfig), "model": model_configs()}


def sentences(error: ValidationError, tree: Mapping[str, object]) -> list[str]:
    """Says what is wrong with ``tree``; the complaints of a union's members about one key are one sentence."""
    return list(dict.fromkeys(_sentence(detail, tree) for detail in error.errors(include_url=False)))


def _sentence(detail: ErrorDetails, tree: Mapping[str, object]) -> str:
    model, parts = _key(detail)
    key = ".".join(parts)
    match detail["type"]:
        case "extra_forbidden":
            return f"there is no key '{key}'{_nearest_key(key, tree)}"
        case "missing" if model is None:
            return f"the section '{key}' is missing: add it to the file, as in configs/digits_resnet.yaml"
        case "missing" if detail["loc"][-1] == parts[-1]:  # and not a place in a list
            return f"the key '{key}' is missing: add it to the file, or {key}=... to the command"
        case "union_tag_not_found":
            return f"the key '{key}.kind' is missing: it is one of {_kinds(key)}"
        case "union_tag_invalid":
            return f"'{key}.kind' must be one of {_kinds(key)}"
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
    must = describe(model.model_json_schema()["properties"].get(parts[-1], {})) if model else "a section with keys"
    return f"'{key}' must be {must or detail['msg']}, not {_shown(_value(parts, tree))}"


def _key(detail: ErrorDetails) -> tuple[type[BaseModel] | None, list[str]]:
    """The words of the key that is meant, and the model that has it; no model if it is a section.

    What pydantic puts into the path besides is left out: a section's kind, the members of a union, places in a list.
    """
    section, *rest = [str(part) for part in detail["loc"]] or [""]
    if section in SECTION_KINDS and rest:
        kind, *rest = rest
        model = next(model for model in SECTION_KINDS[section] if _is_kind(model, kind))
        return (model if rest else None), [section, *rest[:1]]
    field = Experiment.model_fields.get(section)
    if field is None or section in SECTION_KINDS:
        return None, [section]
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return (field.annotation if rest else None), [section, *rest[:1]]
    return Experiment, [section]


def _value(parts: Sequence[str], tree: object) -> object:
    for part in parts:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _shown(value: object) -> str:
    """As it is written in YAML."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


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
