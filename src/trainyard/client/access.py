"""Where a server is and what opens it: checks of a URL, and tokens, at the client's end and at the server's.

A server reads its token from a file, follows the file when it changes, and compares in constant time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from trainyard.base.errors import UsageError

_TOKEN = re.compile(r"[\x21-\x7e]+")
NEW_BYTES = 32
"""Random bytes of a token that is made here."""
SHORTEST = 8
"""Characters of a token; TorchServe's own have so many."""


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


class KeyFile:
    """A file with a token: TorchServe's own, whose inference key counts, or one that holds nothing else.

    While the file can't be read, as in the instant in which it is written anew, the last token stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = b""

    def token(self) -> str:
        """The token as it is now; empty if there has been none yet."""
        self._refresh()
        return self._token.decode()

    def _refresh(self) -> None:
        with contextlib.suppress(OSError, UsageError):
            status = os.stat(self.path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                token = read_token(self.path)
                if len(token) >= SHORTEST:
                    self._token, self._seen = token.encode(), seen


def management_key(path: Path) -> str:
    """The management key in TorchServe's own file; empty while it isn't there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_text(encoding="utf-8"))["management"]["key"])
    return ""


def prepare_token_file(path: Path) -> Path:
    """A token file of the user's own; a new one with a random token if there is none yet.

    Raises:
        UsageError: it can't be read or made, or its token is too short.
    """
    if not path.exists():
        content = json.dumps({"inference": {"key": secrets.token_urlsafe(NEW_BYTES)}}, indent=2)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise UsageError(f"the token file {path} can't be made ({error.strerror}): choose another place") from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content + "\n")
    if len(read_token(path)) < SHORTEST:
        raise UsageError(f"the token in {path} has fewer than {SHORTEST} characters: take a longer, random one")
    return path.absolute()
