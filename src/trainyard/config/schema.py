"""The JSON Schema of a config file, for editors, and in words, for the sentences of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias, Union, cast

from pydantic import Field, create_model

from trainyard.base.project import require_project
from trainyard.config.kinds import experiment_class, model_classes
from trainyard.config.section import CHANGES, Change

Schema: TypeAlias = dict[str, object]

VARIABLE: Schema = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    "description": "The value of an environment variable: `${NAME}`, or `${NAME:-default}`.",
}
NOTES = ("title", "description", "default")
TYPES = {"integer": "a whole number", "number": "a number", "string": "text"}
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "of at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "pattern": "that matches",
}


def json_schema() -> Schema:
    """The JSON Schema of a config file as it is written: any value may also come from the environment."""
    require_project()
    kinds: Any = Union[tuple(model_classes())]  # noqa: UP007 built at run time
    if len(model_classes()) > 1:
        kinds = Annotated[kinds, Field(discriminator="kind")]
    base = experiment_class()
    model = Field(description=base.model_fields["model"].description)
    whole = create_model("Experiment", __base__=base, __doc__=base.__doc__, model=(kinds, model))
    schema = whole.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        section["properties"] = {key: _or_variable(_in_words(value)) for key, value in section["properties"].items()}
    schema["$defs"]["EnvironmentVariable"] = VARIABLE
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def describe(schema: Mapping[str, object]) -> str:
    """What a value may be, as in ``'auto', 'cpu' or a whole number of at least 1``; empty if it can't be said so."""
    words = [word for member in _members(schema) for word in _words(member)]
    if "" in words or not words:
        return ""
    *others, last = sorted(dict.fromkeys(words), key="null".__eq__)
    return f"{', '.join(others)} or {last}" if others else last


def _in_words(schema: Schema) -> Schema:
    """With what the key changes as a sentence of its description."""
    rest = {name: value for name, value in schema.items() if name != "changes"}
    words = [schema.get("description"), CHANGES[cast(Change, schema.get("changes", "weights"))]]
    return {**rest, "description": " ".join(str(word) for word in words if word)} if any(words) else rest


def _or_variable(schema: Schema) -> Schema:
    members = _members(schema)
    if any(member.keys() & {"$ref", "oneOf", "const"} or _is_any_text(member) for member in members):
        return schema
    notes = {note: schema[note] for note in NOTES if note in schema}
    bare = [{name: value for name, value in member.items() if name not in NOTES} for member in members]
    return {"anyOf": [*bare, {"$ref": "#/$defs/EnvironmentVariable"}], **notes}


def _members(schema: Mapping[str, object]) -> list[Schema]:
    """The members of a union, and else the schema itself."""
    return cast(list[Schema], schema.get("anyOf", [schema]))


def _is_any_text(schema: Schema) -> bool:
    return schema.get("type") == "string" and not schema.keys() & {"enum", "pattern"}


def _words(schema: Schema) -> Iterator[str]:
    kind = str(schema.get("type"))
    if "enum" in schema or "const" in schema:
        yield from (f"'{value}'" for value in cast(list[object], schema.get("enum", [schema.get("const")])))
    elif kind == "boolean":
        yield from ("true", "false")
    elif kind == "null":
        yield "null"
    elif kind == "array":
        first = cast(list[Schema], schema.get("prefixItems", [schema.get("items", {})]))
        count = f" of {len(first)}" if "prefixItems" in schema else ""
        yield f"a list{count} (each {describe(first[0]) or 'of another form'})"
    else:
        bounds = " and ".join(f"{word} {schema[name]}" for name, word in BOUNDS.items() if name in schema)
        yield f"{TYPES[kind]} {bounds}".rstrip() if kind in TYPES else ""
