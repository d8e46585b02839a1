"""From the values of a request to an item. None of them gives a path: a client names no files of the server."""

from __future__ import annotations

import binascii

from trainyard.base.errors import ItemError
from trainyard.http.strict_json import Value, kind_of
from trainyard.preprocess.text import without_surrogates

MAX_CHARS = 100_000
"""Characters of a text in a request. A model reads the first few thousand, but the tokenizer goes through all of it:
10 MB take seconds, in which nobody else is answered."""


def sent_image(value: Value) -> bytes:
    """The bytes of an image in base64.

    Raises:
        ItemError: it is nothing of the kind.
    """
    if not isinstance(value, str):
        raise ItemError(f"the image is {kind_of(value)} instead of a string in base64")
    if not value:
        raise ItemError("the image is empty")
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise ItemError("the image isn't valid base64 (without line breaks, and without a data: prefix)") from None


def sent_text(value: Value, pair: bool) -> str | tuple[str, str]:
    """A text, or a ``pair`` in a list.

    Raises:
        ItemError: it is nothing of the kind, too long, or not Unicode.
    """
    if pair:
        if not isinstance(value, list) or len(value) != 2:
            raise ItemError("this model reads pairs: the text is a list of two strings")
        return _checked(value[0]), _checked(value[1])
    return _checked(value)


def decoded_text(content: bytes) -> str:
    """The text of bytes in UTF-8; a byte order mark, as editors write it, isn't part of it.

    Raises:
        ItemError: it isn't UTF-8, or too long.
    """
    if len(content) > 4 * MAX_CHARS:  # of which UTF-8 takes 4 bytes at most: no need to decode it
        raise _too_long()
    try:
        return _checked(content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise ItemError(f"the text isn't UTF-8 at byte {error.start}") from None


def _checked(value: Value) -> str:
    if not isinstance(value, str):
        raise ItemError(f"the text is {kind_of(value)} instead of a string")
    if len(value) > MAX_CHARS:
        raise _too_long()
    if without_surrogates(value) != value:
        raise ItemError("the text isn't Unicode: it holds half of a surrogate pair")
    return value


def _too_long() -> ItemError:
    return ItemError(f"the text has more than {MAX_CHARS:,} characters")
