"""JSON without what Python's reader lets pass: keys given twice, NaN and Infinity, values without number or end."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import NoReturn, TypeAlias

Value: TypeAlias = object
"""What JSON can say: dict, list, str, int, float, bool or None."""

MAX_MARKS = 20_000
"""Strings, brackets and commas in a JSON text. No request needs a tenth of them, and ``[{},{},...]`` takes 25 times its
size in memory."""

_MARKS = (b"[", b"{", b",")
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # possessive and never failing: in linear time


class JsonError(ValueError):
    """Half a sentence on what isn't right."""


def parse_json(body: bytes) -> Value:
    """Reads a JSON text in UTF-8.

    Raises:
        JsonError: it isn't one, says a key twice, has a number that JSON doesn't know, is too deep or has too many
            values.
    """
    if _has_too_many_marks(body):
        raise JsonError("it has too many values")
    try:
        text = body.decode("utf-8-sig")  # with or without the mark that Windows puts before it
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise JsonError(f"it isn't UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise JsonError("it is too deep") from None
    except ValueError as error:  # Python reads no integer of more than 4,300 digits
        raise error if isinstance(error, JsonError) else JsonError("a number in it is too long") from None


def kind_of(value: Value) -> str:
    """What a value is, in the words of JSON."""
    if isinstance(value, bool):
        return "true or false"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return next((name for type_, name in names.items() if isinstance(value, type_)), "null")


def shown(text: str, width: int = 40) -> str:
    """A client's own words, quoted for a message: bounded in length, with nothing that isn't printable."""
    return repr(text if len(text) <= width else f"{text[:width]}...")


def _has_too_many_marks(body: bytes) -> bool:
    """Looks before anything is made of them; closely only where there are many, which a text may hold too."""
    if _count_marks(body, 0, len(body)) <= MAX_MARKS:
        return False
    marks = end = 0
    for string in _STRING.finditer(body):
        marks += 1 + _count_marks(body, end, string.start())
        end = string.end()
        if marks > MAX_MARKS:
            return True
    return marks + _count_marks(body, end, len(body)) > MAX_MARKS


def _count_marks(body: bytes, start: int, end: int) -> int:
    return sum(body.count(mark, start, end) for mark in _MARKS)


def _distinct(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise JsonError(f"it has the key {shown(twice)} twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise JsonError(f"{name} isn't JSON")
