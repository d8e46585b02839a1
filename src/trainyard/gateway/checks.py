"""What a request's Content-Type may be."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trainyard.gateway.bodies import Refused
from trainyard.gateway.compressed import ENCODINGS, encoding_of
from trainyard.gateway.proxy import failure
from trainyard.http.request_types import HEADER_LENGTH, JSON

TYPES = re.compile(r"(image/[\w.+-]+|application/(octet-stream|json)|text/plain|multipart/form-data)", re.IGNORECASE)
RAW = re.compile(r"image/|application/octet-stream|text/plain", re.IGNORECASE)
"""Types of a body that is one item."""
EXAMPLES = "image/jpeg, application/json, text/plain, application/octet-stream or multipart/form-data"
PRINTABLE = re.compile(r"[\x20-\x7e]+")


def checked_type(headers: Mapping[str, str], is_v2: bool) -> str:
    """The type of a request's body, with its parameters, as the client gave it.

    Raises:
        Refused: it isn't one that is served, or the body is compressed in another way than we read.
    """
    if (encoding := encoding_of(headers)) not in ENCODINGS:
        taken = {"Accept-Encoding": ", ".join(ENCODINGS)}
        raise Refused(failure(415, f"the Content-Encoding {encoding!r} isn't taken: send gzip or deflate", taken))
    length = headers.get(HEADER_LENGTH) if is_v2 else None
    if length is not None:
        if not re.fullmatch("[0-9]{1,18}", length):
            raise Refused(failure(400, f"{HEADER_LENGTH} is {length[:100]!r}, which isn't a number of bytes"))
        # The type of what it tells the length of, whatever the body is called that begins with it.
        return f"{JSON}; {HEADER_LENGTH.lower()}={length}"
    full = headers.get("Content-Type", JSON if is_v2 else "").strip()
    short = full.partition(";")[0].strip()
    fits = short.lower() == JSON if is_v2 else TYPES.fullmatch(short)
    if not fits or not PRINTABLE.fullmatch(full):
        wanted = JSON if is_v2 else EXAMPLES
        raise Refused(failure(415, f"Content-Type {short!r} isn't taken: it must be {wanted}"))
    return full
