"""Bodies of ``multipart/form-data`` (RFC 7578), read strictly: what is cut off or ambiguous is refused."""

from __future__ import annotations

import re
from typing import NamedTuple

from trainyard.http.request_types import MULTIPART, MediaType, RequestError, parse_media_type

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, 5.1.1
_MAX_HEADER_BYTES = 8192
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")


class Part(NamedTuple):
    """A field or file of a form.

    Attributes:
        type: Its media type; none if it doesn't say.
        content: Its bytes.
    """

    type: MediaType | None
    content: bytes


def parse_multipart(body: bytes, boundary: str | None, most: int) -> list[Part]:
    """Splits a body into its parts, in their order, whatever their names.

    Args:
        body: The whole body.
        boundary: From the Content-Type.
        most: Parts that it may have.

    Raises:
        RequestError: it isn't such a body, or has more parts.
    """
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise _refused("the Content-Type has no valid boundary")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    before, *parts = (b"\r\n" + body).split(delimiter, most + 2)
    if before or not parts:
        raise _refused("it doesn't begin with the boundary")
    if len(parts) > most + 1:
        raise _refused(f"it has more than {most} parts")
    *parts, end = parts
    if end not in (b"--", b"--\r\n"):
        raise _refused("it doesn't end with the closing boundary")
    if not parts:
        raise _refused("it has no parts")
    return [_part(part) for part in parts]


def _refused(why: str) -> RequestError:
    return RequestError(f"the body isn't valid {MULTIPART}: {why}")


def _part(part: bytes) -> Part:
    head, blank, content = part.partition(b"\r\n\r\n")
    if not blank or not head.startswith(b"\r\n") or len(head) > _MAX_HEADER_BYTES:
        raise _refused("a part has no valid headers")
    headers = _headers(head[2:].decode("latin-1"))
    disposition = headers.get("content-disposition", "")
    if disposition.partition(";")[0].strip().lower() != "form-data":
        raise _refused("a part has no Content-Disposition: form-data")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise _refused("a part has a Content-Transfer-Encoding: send its bytes as they are")
    if "content-type" not in headers:
        return Part(None, content)
    type = parse_media_type(headers["content-type"])
    if type is None:
        raise _refused("a part has an invalid Content-Type")
    return Part(type, content)


def _headers(head: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name in headers:
            raise _refused("a part has a header that isn't one, or one twice")
        headers[name] = value.strip()
    return headers
