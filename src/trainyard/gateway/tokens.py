"""The token that clients show: read from a file, followed when the file changes, compared in constant time."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
from pathlib import Path

from trainyard.base.errors import UsageError
from trainyard.client.access import read_token

log = logging.getLogger(__name__)

NEW_BYTES = 32
"""Random bytes of a token that is made here."""
SHORTEST = 8
"""Characters of a token; TorchServe's own have so many."""


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

    def accepts(self, authorization: str | None) -> bool:
        """Whether a header ``Authorization`` shows the token."""
        self._refresh()
        scheme, _, shown = (authorization or "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode(errors="surrogateescape"), self._token)
        return same and scheme.lower() == "bearer" and bool(self._token)

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
