"""What is taken for a server's URL and for a token, and that a token is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.client.access import bearer, check_url

TOKEN = "s3cret-t0ken"


@pytest.mark.parametrize("content", ["", "{}", '{"inference": 7}', "{" * 5, "two words", "caf\u00e9", "a\nb"])
def test_a_file_without_a_token_is_refused_unseen(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(UsageError) as raised:
        bearer(None, file)
    assert content in ("", "{}") or content not in str(raised.value)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="isn't text"):
        bearer(None, file)
    with pytest.raises(UsageError, match="can't be read"):
        bearer(None, tmp_path)
    with pytest.raises(UsageError, match="one of them"):
        bearer("token", file)


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://a", "http://", "http://a:b", "http://a:99999", "http://a/?b=c",
                                 "http://[::1", "http://a/#b", "runs/digits/latest"])  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="isn't the URL of a server"):
        check_url(url)


def test_a_password_in_the_url_is_refused_unseen() -> None:
    with pytest.raises(UsageError, match="token") as raised:
        check_url(f"http://user:{TOKEN}@localhost")
    assert TOKEN not in str(raised.value)
