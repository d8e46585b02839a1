"""Where a server is and what opens it: checks of a URL, and tokens, at the client's end and at the server's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from trainyard.base.errors import UsageError

_TOKEN = re.compile(r"[\x21-\x7e]+")
SHORTEST = 8
"""Characters that a server's token has at least; TorchServe's own have so many."""


def check_url(url: str) -> str:
    """The URL of a server, without the slashes at its end.

    Raises:
        UsageError: it isn't one of HTTP or HTTPS with a host and nothing behind the path, or it holds a password.
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.username is not None:
            raise UsageError("the URL holds a name or password: give a token instead, by token_file or --token-file")
        behind = parts.query or parts.fragment
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not behind:
            return url.rstrip("/")
    raise UsageError(f"{url!r} isn't the URL of a server: give one such as http://localhost:8080")


def bearer(token: str | None, token_file: Path | str | None) -> dict[str, str]:
    """The header that gives a token; none without one.

    Raises:
        UsageError: both are given, the file can't be read, or what is there can't be a token. Never shows it.
    """
    if token is not None and token_file is not None:
        raise UsageError("both a token and a token file are given: give one of them")
    if token_file is not None:
        token = read_token(Path(token_file))
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token):
        raise UsageError("the token is empty or holds what no token does (spaces, line breaks, accents): copy it again")
    return {"Authorization": f"Bearer {token}"}


def read_token(path: Path, use: str = "inference") -> str:
    """The token of a file: TorchServe's key for a use, or all that the file holds.

    Raises:
        UsageError: the file can't be read, or is JSON without that key.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        return str(json.loads(text)[use]["key"]) if text.startswith("{") else text
    except OSError as error:
        raise UsageError(f"the token file {path} can't be read ({error.strerror}): check its path and owner") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"the token file {path} isn't text or has no {use} key: name the file that trainyard serve wrote"
        ) from None


def prepare_token_file(path: Path) -> Path:
    """A token file of the user's own; a new one with a random token if there is none yet.

    Raises:
        UsageError: it can't be made.
    """
    if not path.exists():
        try:
            with open(path, "x", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
                print(json.dumps({"inference": {"key": secrets.token_urlsafe()}}, indent=2), file=file)
        except OSError as error:
            raise UsageError(f"the token file {path} can't be made ({error.strerror}): choose another place") from error
    return path.absolute()
