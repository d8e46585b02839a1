"""The tokens that clients may show, each with a name for the log, from a file that may change while it is used."""

from __future__ import annotations

import hmac
import logging
import os
import re
import stat
from pathlib import Path

from trainyard.base.errors import UsageError
from trainyard.client.access import SHORTEST, read_token

log = logging.getLogger(__name__)

ONLY = "default"
"""The name of a token that stands alone in its file."""
LINE = re.compile(rf"(?P<name>[\w.@-]{{1,64}})[ \t]+(?P<token>[\x21-\x7e]{{{SHORTEST},}})", re.ASCII)
ALONE = re.compile(rf"[\x21-\x7e]{{{SHORTEST},}}")


class Tokens:
    """Those of a file: ``name token`` a line, or one token alone, as in TorchServe's own file too.

    The file is read again when it changes, so that a token can be given out or taken back without a new start. While
    it can't be read, as in the instant in which it is written anew, or isn't sound, the last tokens stay.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._names: dict[bytes, str] = {}

    def any(self) -> str:
        """One of them, for the server's own requests; empty if there has been none yet."""
        self._refresh()
        return next(iter(self._names), b"").decode()

    def name_of(self, authorization: str | None) -> str | None:
        """The name of the token that a header ``Authorization`` shows; none if it shows none of them."""
        self._refresh()
        scheme, _, shown = (authorization or "").partition(" ")
        sent = shown.strip().encode(errors="surrogateescape")
        # All are compared, whichever it is: how long it takes tells nothing.
        found = [name for token, name in self._names.items() if hmac.compare_digest(sent, token)]
        return found[0] if found and scheme.lower() == "bearer" else None

    def reload(self) -> None:
        """Reads the file again, and says in the log whose tokens there are."""
        self._seen = None
        if self._refresh():
            log.info("tokens of %s were read: %s", self.path, ", ".join(self._names.values()))

    def _refresh(self) -> bool:
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        seen = (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._names = read_tokens(self.path)
        except UsageError as error:
            log.warning("the tokens stay as they were: %s", error)
            return False
        return True


def read_tokens(path: Path) -> dict[bytes, str]:
    """The name of each token in a file.

    Raises:
        UsageError: the file can't be read, others can read it, or a line isn't a name and a token. Never shows one.
    """
    lines = [line.strip() for line in read_token(path).splitlines() if line.strip()]
    if path.stat().st_mode & stat.S_IRWXO:
        raise UsageError(f"others can read or change the token file {path}: chmod o-rwx it")
    if len(lines) == 1 and ALONE.fullmatch(lines[0]):
        return {lines[0].encode(): ONLY}
    found = [LINE.fullmatch(line) for line in lines]
    for number, line in enumerate(found, 1):
        if line is None:
            raise UsageError(
                f"line {number} of the token file {path} isn't a name and a token: write NAME TOKEN, with at least "
                f"{SHORTEST} characters in the token"
            )
    names = {line["token"].encode(): line["name"] for line in found if line}
    if not names or len(names) < len(lines) or len(set(names.values())) < len(lines):
        raise UsageError(f"the token file {path} has no token, or a name or a token twice: write NAME TOKEN a line")
    return names
