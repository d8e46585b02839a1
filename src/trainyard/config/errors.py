"""What a config's mistakes are called: one sentence for each key, with the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainyard.config.data import DATA_KINDS
from trainyard.config.experiment import Settings
from trainyard.config.kinds import experiment_class, kinds, model_class
from trainyard.config.moved import moved_keys
from trainyard.config.schema import describe


def sentences(
    error: ValidationError, tree: Mapping[str, object], root: type[BaseModel], prefix: tuple[str, ...] = ()
) -> list[str]:
    """Says what is wrong with ``tree``; the complaints of a union's members about one key are one sentence.

    Args:
        tree: The whole config, as it was read.
        root: What was validated.
        prefix: The section that it is, if it isn't the whole.
    """
    return list(dict.fromkeys(_sentence(detail, tree, root, prefix) for detail in error.errors(include_url=False)))


def section_sentence(section: str, value: object) -> str:
    """What is wrong with a section that is missing, or no section."""
    if value is None:
        return f"the section '{section}' is missing: add it to the file, as in configs/digits_resnet.yaml"
    return f"'{section}' must be a section with keys, not {_shown(value)}"


def kind_sentence(section: str, value: Mapping[str, object], known: Sequence[str]) -> str:
    """What is wrong with a section whose ``kind`` is missing or unknown."""
    if "kind" not in value:
        return f"the key '{section}.kind' is missing: it is one of {', '.join(known)}"
    return f"'{section}.kind' must be one of {', '.join(known)}"


def _sentence(detail: ErrorDetails, tree: Mapping[str, object], root: type[BaseModel], prefix: tuple[str, ...]) -> str:
    model, parts = _key(detail, root, prefix)
    key = ".".join(parts)
    match detail["type"]:
        case "extra_forbidden":
            return f"there is no key '{key}'{_nearest_key(key, tree)}"
        case "missing" if model is None:
            return section_sentence(key, None)
        case "missing" if detail["loc"][-1] == parts[-1]:  # and not a place in a list
            return f"the key '{key}' is missing: add it to the file, or {key}=... to the command"
        case "union_tag_not_found":
            return kind_sentence(key, {}, tuple(DATA_KINDS))
        case "union_tag_invalid":
            return kind_sentence(key, {"kind": ""}, tuple(DATA_KINDS))
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
    must = describe(model.model_json_schema()["properties"].get(parts[-1], {})) if model else "a section with keys"
    return f"'{key}' must be {must or detail['msg']}, not {_shown(_value(parts, tree))}"


def _key(
    detail: ErrorDetails, root: type[BaseModel], prefix: tuple[str, ...]
) -> tuple[type[BaseModel] | None, list[str]]:
    """The words of the key that is meant, and the model that has it; no model if it is a section.

    What pydantic puts into the path besides is left out: a section's kind, the members of a union, places in a list.
    """
    section, *rest = [str(part) for part in detail["loc"]] or [""]
    if prefix:
        return root, [*prefix, section]
    if section == "data" and rest:
        kind, *rest = rest
        return (DATA_KINDS[kind] if rest else None), [section, *rest[:1]]
    field = root.model_fields.get(section)
    if field is None or section == "data":
        return None, [section]
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return (field.annotation if rest else None), [section, *rest[:1]]
    return root, [section]


def _value(parts: Sequence[str], tree: object) -> object:
    for part in parts:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _shown(value: object) -> str:
    """As it is written in YAML."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _nearest_key(key: str, tree: Mapping[str, object]) -> str:
    """Looks among the keys that were moved, then all for the same last word (``lr`` -> ``optim.lr``) or one like it.

    A slip within one of the library's sections is told without the project, whose code takes seconds to import.
    """
    if today := moved_keys().get(key):
        return f"; did you mean '{today}'?"
    section, _, last = key.rpartition(".")
    if section in Settings.model_fields:
        siblings = {name.rpartition(".")[2]: name for name in _siblings(key, list(_keys(Settings, tree)))}
        if close := difflib.get_close_matches(last, siblings, n=1):
            return f"; did you mean '{siblings[close[0]]}'?"
    keys = list(_keys(experiment_class(), tree))
    same = [known for known in keys if known.rsplit(".", 1)[-1] == last]
    near = same or difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if not near:
        by_last = {known.rsplit(".", 1)[-1]: known for known in keys}
        near = [by_last[word] for word in difflib.get_close_matches(last, by_last, n=1)]
    return f"; did you mean '{near[0]}'?" if near else f"; the keys here are {', '.join(_siblings(key, keys))}"


def _siblings(key: str, keys: Sequence[str]) -> list[str]:
    section = key.rpartition(".")[0]
    return [known for known in keys if known.rpartition(".")[0] == section]


def _keys(root: type[BaseModel], tree: Mapping[str, object]) -> Iterator[str]:
    """Every dotted key that this config may have, given the kinds that it chose."""
    for name, field in root.model_fields.items():
        yield name
        for model in _section_models(name, field.annotation, tree.get(name)):
            yield from (f"{name}.{child}" for child in model.model_fields)


def _section_models(name: str, annotation: object, value: object) -> Sequence[type[BaseModel]]:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if name == "data":
        return [DATA_KINDS[kind]] if kind in DATA_KINDS else list(DATA_KINDS.values())
    if name == "model":
        return [model_class(kind)] if kind in kinds() else []
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
