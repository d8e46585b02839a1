"""JSON without what Python's reader lets pass: keys given twice, NaN and Infinity, values without number or end."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from typing import NoReturn, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from trainyard.http.request_types import RequestError, Value, shown

MAX_MARKS = 20_000
"""Strings, brackets and commas in a JSON text. No request needs a tenth of them, and ``[{},{},...]`` takes 25 times its
size in memory."""

_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[|\{|,', re.DOTALL)  # possessive and never failing: in linear time


class StrictObject(BaseModel):
    """An object of a request: no key but its own is taken, and no value of another type, ``true`` for 1 among them."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    @classmethod
    def read(cls, value: Value) -> Self:
        """It, of parsed JSON.

        Raises:
            RequestError: it is none; says where and why.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = shown(".".join(map(str, first["loc"])) or "its keys")
            if first["type"] == "extra_forbidden":
                raise RequestError(f"the JSON has the unknown key {place}") from None
            raise RequestError(f"the JSON isn't valid at {place}: {first['msg']}") from None


def parse_json(body: bytes) -> Value:
    """Reads a JSON text in UTF-8.

    Raises:
        RequestError: it isn't one, says a key twice, has a number that JSON doesn't know, is too deep or has too many
            values.
    """
    # Before anything is made of them; closely only where there are many, which a text may hold too.
    if sum(map(body.count, b"[{,")) > MAX_MARKS and any(islice(_MARK.finditer(body), MAX_MARKS, None)):
        raise _refused("it has too many values")
    try:
        text = body.decode().removeprefix("\ufeff")  # the mark that Windows puts before it
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_unknown)
    except UnicodeDecodeError as error:
        raise _refused(f"it isn't UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _refused(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _refused("it is too deep") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise _refused("a number in it is too long") from None


def _refused(why: str) -> RequestError:
    return RequestError(f"the body isn't valid JSON: {why}")


def _distinct(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _refused(f"it has the key {shown(twice)} twice")
    return found


def _unknown(constant: str) -> NoReturn:
    raise _refused(f"{constant} isn't JSON")
