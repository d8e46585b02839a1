"""What a value is: ``true``, ``false``, ``null``, a number, a list or a mapping, and else the text that stands there.

YAML alone guesses more than a user means: a column called ``no`` is false to it, ``01`` is 1, ``2024-01-31`` is a date,
and `` #`` ends a path. The same few rules hold here in files, in ``key=value`` words and in the environment.
"""

from __future__ import annotations

import math
from typing import cast

import yaml

WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
BRACKETS = {"[": "]", "{": "}"}


def read_value(text: str) -> object:
    """The value of a ``key=value`` word or of an environment variable; ``[a, b]`` and ``{a: b}`` are read as YAML."""
    if text and BRACKETS.get(text[0]) == text[-1]:
        try:
            return read_yaml(text)
        except yaml.YAMLError:
            return text
    return read_scalar(text)


def read_scalar(text: str) -> object:
    """The value of text without quotes and brackets.

    A number counts only if it is written as Python writes it (not ``01``, ``1e3``), so that a key that wants text gets
    the same text back; a key that wants a number takes the others as well.
    """
    if text in WORDS:
        return WORDS[text]
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if str(value) == text and math.isfinite(value):
            return value
    return text


def read_yaml(text: str) -> object:
    """Reads YAML by the rules above.

    Raises:
        yaml.YAMLError: it isn't YAML.
    """
    try:
        return cast(object, yaml.load(text, _Loader))
    except ValueError as error:  # a tag that the value doesn't fit, as in !!int x
        raise yaml.YAMLError(str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML's syntax, without its guesses; ``<<`` still merges."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> object:
    text = loader.construct_scalar(node)
    return text if node.style or not isinstance(text, str) else read_scalar(text)


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)
