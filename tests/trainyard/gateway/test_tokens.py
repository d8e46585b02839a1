"""The file of tokens: several with names, one alone, changed while it is used, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.gateway.tokens import Tokens, read_tokens


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_several_have_names_and_one_alone_is_the_default(tmp_path: Path) -> None:
    tokens = Tokens(write(tmp_path / "t", "shop  aaaaaaaa\n\n back-office\tbbbbbbbb \n"))
    assert [tokens.name_of(f"Bearer {token}") for token in ("aaaaaaaa", "bbbbbbbb")] == ["shop", "back-office"]
    assert tokens.name_of("bearer aaaaaaaa") == "shop"
    for shown in (
        None,
        "",
        "Bearer",
        "Bearer shop",
        "Bearer shop  aaaaaaaa",
        "Basic aaaaaaaa",
        "Bearer aaaaaaaa\udcff",
    ):
        assert tokens.name_of(shown) is None
    assert tokens.any() == "aaaaaaaa"
    assert Tokens(write(tmp_path / "one", "cccccccc")).name_of("Bearer cccccccc") == "default"
    assert Tokens(write(tmp_path / "json", '{"inference": {"key": "dddddddd"}}')).name_of("Bearer dddddddd")


def test_it_is_followed_and_stays_as_it_was_while_it_isnt_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "t", "shop aaaaaaaa")
    tokens = Tokens(path)
    assert tokens.name_of("Bearer aaaaaaaa") == "shop"
    for text, mode in (("shop aaaaaaaa\nother short", 0o600), ("shop bbbbbbbbb", 0o644), ("", 0o600)):
        write(path, text, mode)
        assert tokens.name_of("Bearer aaaaaaaa") == "shop"
        assert tokens.name_of("Bearer bbbbbbbbb") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3, "once for each change"
    write(path, "shop bbbbbbbbb\nnew cccccccc")
    tokens.reload()
    assert tokens.name_of("Bearer aaaaaaaa") is None
    assert tokens.name_of("Bearer cccccccc") == "new"
    assert "shop, new" in caplog.text
    assert "bbbbbbbb" not in caplog.text


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("shop aaaaaaaa", 0o604, "chmod o-rwx"),
        ("aaaaaaaa", 0o602, "chmod o-rwx"),
        ("shop aaaaaaaa\nbbbbbbbb", 0o600, "line 2"),
        ("shop a a a a a", 0o600, "line 1"),
        ("shop short", 0o600, "line 1"),
        ("shöp aaaaaaaa", 0o600, "line 1"),
        ("a aaaaaaaa\na bbbbbbbb", 0o600, "twice"),
        ("a aaaaaaaa\nb aaaaaaaa", 0o600, "twice"),
        ("\n\n", 0o600, "no token"),
    ],
)
def test_what_is_refused(text: str, mode: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read_tokens(write(tmp_path / "t", text, mode))
    assert text not in str(caught.value).replace(str(tmp_path), "")


def test_a_group_may_read_it(tmp_path: Path) -> None:
    assert read_tokens(write(tmp_path / "t", "aaaaaaaa", 0o640)) == {b"aaaaaaaa": "default"}
