"""Bodies of ``multipart/form-data`` (RFC 7578), read strictly: what is cut off or ambiguous is refused."""

from __future__ import annotations

from typing import NamedTuple

from trainyard.http.request_types import MAX_ITEMS, MULTIPART, MediaType, RequestError, parse_media_type

_MAX_HEADER_BYTES = 8192


class Part(NamedTuple):
    """A field or file of a form: its media type, none if it doesn't say, and its bytes."""

    type: MediaType | None
    content: bytes


def parse_multipart(body: bytes, boundary: str | None) -> list[Part]:
    """Splits a body by the boundary of its Content-Type into its parts, in their order, whatever their names.

    Raises:
        RequestError: it isn't such a body, or has more parts than a request may have items.
    """
    if not boundary:
        raise _refused("the Content-Type has no boundary")
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(errors="replace"), MAX_ITEMS + 2)
    if before or not parts:
        raise _refused("it doesn't begin with the boundary")
    if len(parts) > MAX_ITEMS + 1:
        raise _refused(f"it has more than {MAX_ITEMS} parts")
    if parts.pop() not in (b"--", b"--\r\n"):
        raise _refused("it doesn't end with the closing boundary")
    return [_part(part) for part in parts]


def _part(part: bytes) -> Part:
    head, blank, content = part.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    found = [line.partition(":") for line in lines]
    headers = {name.lower(): value.strip() for name, colon, value in found if name and colon}
    if not blank or start or len(head) > _MAX_HEADER_BYTES or len(headers) < len(found):
        raise _refused("a part has no valid headers, or a header that isn't one, or one twice")
    if headers.get("content-disposition", "").partition(";")[0].strip().lower() != "form-data":
        raise _refused("a part has no Content-Disposition: form-data")
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise _refused("a part has a Content-Transfer-Encoding: send its bytes as they are")
    type = parse_media_type(headers.get("content-type", ""))
    if type is None and "content-type" in headers:
        raise _refused("a part has an invalid Content-Type")
    return Part(type, content)


def _refused(why: str) -> RequestError:
    return RequestError(f"the body isn't valid {MULTIPART}: {why}")
