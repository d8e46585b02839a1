"""The value of a Content-Type header, and what a model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})((?:[ \t]*;.*)?)")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?[ \t]*')
_MAX_CHARS = 1000


@dataclass(frozen=True)
class MediaType:
    """A media type.

    Attributes:
        name: In small letters, such as ``image/png``.
        parameters: By their names in small letters.
    """

    name: str
    parameters: dict[str, str]

    @property
    def is_utf8(self) -> bool:
        """Whether it names no other encoding than UTF-8."""
        return self.parameters.get("charset", "utf-8").lower() == "utf-8"


def parse_media_type(value: str) -> MediaType | None:
    """Reads ``type/subtype; key=value`` (RFC 9110, 8.3.1); nothing if it isn't one, or has a parameter twice."""
    match = _TYPE.fullmatch(value.strip(" \t")) if len(value) <= _MAX_CHARS else None
    if match is None:
        return None
    name, rest = match.groups()
    parameters: dict[str, str] = {}
    position = 0
    while position < len(rest):
        found = _PARAMETER.match(rest, position)
        if found is None:
            return None
        key, content = found.groups()
        if key is not None:
            if key.lower() in parameters:
                return None
            parameters[key.lower()] = re.sub(r"\\(.)", r"\1", content[1:-1]) if content.startswith('"') else content
        position = found.end()
    return MediaType(name.lower(), parameters)
