"""Checks a value against the part of JSON Schema that ours uses, so that the tests need no package for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SHIPPED = Path(__file__).parents[3] / "configs" / "schema.json"

KNOWN = {
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "discriminator",
    "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maximum", "maxItems", "minimum", "minItems",
    "oneOf", "pattern", "prefixItems", "properties", "required", "title", "type",
}  # fmt: skip
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list,
         "object": dict}  # fmt: skip
LIMITS = {
    "minimum": lambda value, limit: value >= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
    "pattern": lambda value, pattern: re.search(pattern, value),
    "minItems": lambda value, limit: len(value) >= limit,
    "maxItems": lambda value, limit: len(value) <= limit,
    "enum": lambda value, allowed: value in allowed,
    "const": lambda value, only: value == only,
}


@pytest.fixture(scope="session")
def marked() -> Callable[[Any], list[str]]:
    """What an editor marks in a config file, as it is written."""
    schema = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return lambda tree: list(_problems(tree, schema, schema, ""))


def _problems(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    """What in ``value`` isn't as the schema says."""
    assert schema.keys() <= KNOWN, f"the checker knows nothing of {schema.keys() - KNOWN}"
    if "$ref" in schema:
        yield from _problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    for union, enough in (("anyOf", lambda fits: fits > 0), ("oneOf", lambda fits: fits == 1)):
        members = [list(_problems(value, member, root, path)) for member in schema.get(union, [])]
        if members and not enough(members.count([])):
            yield f"{path}: {value!r} is none of {union}: {members}"
    if not _is_type(value, schema.get("type")):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    yield from (f"{path}: {value!r} breaks {name}" for name, holds in LIMITS.items()
                if name in schema and not holds(value, schema[name]))  # fmt: skip
    if isinstance(value, dict):
        yield from _key_problems(value, schema, root, path)
    for index, item in enumerate(value if isinstance(value, list) else []):
        yield from _problems(item, schema.get("items", {}), root, f"{path}[{index}]")


def _is_type(value: Any, name: str | None) -> bool:
    if name is None:
        return True
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _key_problems(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    known = schema.get("properties", {})
    yield from (f"{path}.{key} is missing" for key in schema.get("required", []) if key not in value)
    for key, child in value.items():
        if key in known:
            yield from _problems(child, known[key], root, f"{path}.{key}")
        elif schema.get("additionalProperties") is False:
            yield f"there is no {path}.{key}"
