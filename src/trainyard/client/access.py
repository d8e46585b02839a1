"""Where a server is and what opens it: checks of a URL, and the token for the ``Authorization`` header."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

from trainyard.base.errors import UsageError

_TOKEN = re.compile(r"[\x21-\x7e]+")


def check_url(url: str) -> str:
    """The URL of a server, without the slashes at its end.

    Raises:
        UsageError: it isn't one of HTTP or HTTPS with a host and nothing behind the path, or it holds a password.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if sound and parts.username is None and not parts.query and not parts.fragment:
        return url.rstrip("/")
    if sound and parts.username is not None:
        raise UsageError("the URL holds a user's name or password: give a token instead, by token_file or --token-file")
    raise UsageError(f"{url!r} isn't the URL of a server: give one such as http://localhost:8080")


def is_loopback(url: str) -> bool:
    """Whether a server's URL names this machine by a loopback address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bearer(token: str | None, token_file: Path | None) -> dict[str, str]:
    """The header that gives a token; none without one.

    Raises:
        UsageError: both are given, the file can't be read, or what is there can't be a token. Never shows it.
    """
    if token is not None and token_file is not None:
        raise UsageError("both a token and a token file are given: give one of them")
    if token_file is not None:
        token = read_token(token_file)
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token):
        raise UsageError("the token is empty or holds what no token does (spaces, line breaks, accents): copy it again")
    return {"Authorization": f"Bearer {token}"}


def read_token(path: Path) -> str:
    """The token for predictions: the inference key of TorchServe's token file, or all that the file holds.

    Raises:
        UsageError: the file can't be read, or is JSON without that key.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"the token file {path} can't be read ({error.strerror}): check its path and owner") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the token file {path} isn't text: name the file that trainyard serve wrote") from error
    if not text.startswith("{"):
        return text
    try:
        return str(json.loads(text)["inference"]["key"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"the token file {path} has no inference key: name the file that trainyard serve wrote"
        ) from None
