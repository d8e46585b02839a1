"""Sealed folders: what is changed, missing, additional or out of bounds is refused by name, before it is parsed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.artifacts import manifest
from trainyard.artifacts.manifest import digest, verify, write_manifest
from trainyard.base.errors import BundleError, UsageError


def seal(folder: Path) -> Path:
    (folder / "samples").mkdir(parents=True)
    (folder / "trainyard.json").write_text('{"schema_version": 1}')
    (folder / "samples" / "a.txt").write_text("a")
    write_manifest(folder)
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return seal(tmp_path / "bundle")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed."""
    names = []

    def record(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(manifest, "sha256_file", record)
    return names


def test_an_untouched_folder_passes_and_its_digest_is_its_content(sealed: Path, tmp_path: Path) -> None:
    moved = sealed.rename(tmp_path / "moved")

    assert verify(moved) == digest(moved) == verify(moved, digest(moved).upper())


def test_a_changed_file_is_refused_by_name(sealed: Path) -> None:
    (sealed / "samples" / "a.txt").write_text("b")

    with pytest.raises(BundleError, match=r"samples/a\.txt was changed"):
        verify(sealed)


def test_a_file_of_another_size_is_refused_before_any_is_hashed(sealed: Path, hashed: list[str]) -> None:
    with (sealed / "trainyard.json").open("ab") as file:
        file.truncate(manifest.MAX_FILE_BYTES)  # a hole: it takes no space

    with pytest.raises(BundleError, match=r"trainyard\.json was changed"):
        verify(sealed)
    assert not hashed


def test_a_missing_file_is_refused_by_name(sealed: Path) -> None:
    (sealed / "samples" / "a.txt").unlink()

    with pytest.raises(BundleError, match=r"samples/a\.txt is missing"):
        verify(sealed)


def test_an_additional_file_is_refused_by_name(sealed: Path, hashed: list[str]) -> None:
    (sealed / "samples" / "extra.py").write_text("")

    with pytest.raises(BundleError, match=r"samples/extra\.py isn't in the manifest"):
        verify(sealed)
    assert not hashed


def test_what_is_no_file_is_refused(sealed: Path) -> None:
    os.mkfifo(sealed / "pipe")

    with pytest.raises(BundleError, match="pipe isn't a file"):
        verify(sealed)


@pytest.mark.parametrize("name", ["samples/a.txt", "manifest.json", "samples"])
def test_a_link_is_refused(sealed: Path, tmp_path: Path, name: str) -> None:
    (sealed / name).rename(tmp_path / "target")
    (sealed / name).symlink_to(tmp_path / "target")

    with pytest.raises(BundleError, match="is a link"):
        verify(sealed)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "[" * 100_000, '{"files": {"a": 1}}', '{"files": {"../x": {"sha256": "0"}}}', b"\xff",
     '{"files": {"a": {"sha256": "%s", "bytes": -1}}}' % ("0" * 64),
     '{"files": {"a": {"sha256": "%s", "bytes": true}}}' % ("0" * 64),
     '{"files": {"a": {"sha256": "%s", "bytes": "1"}}}' % ("0" * 64),
     '{"files": {"a": {"sha256": "0", "bytes": 1}}}',
     '{"files": {"a": {"bytes": 1}}}'],
    ids=range(11),
)  # fmt: skip
def test_a_broken_manifest_is_refused(sealed: Path, content: str | bytes) -> None:
    (sealed / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(BundleError, match=r"manifest\.json isn't a manifest"):
        verify(sealed)


@pytest.mark.parametrize("name", ["/etc/hostname", "../x", "samples/../../x"])
def test_a_file_outside_is_refused(sealed: Path, name: str) -> None:
    (sealed / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": "0" * 64, "bytes": 1}}}))

    with pytest.raises(BundleError, match="lies outside"):
        verify(sealed)


def test_a_manifest_has_bounds(sealed: Path) -> None:
    entry = {"sha256": "0" * 64, "bytes": manifest.MAX_FILE_BYTES}
    (sealed / "manifest.json").write_text(json.dumps({"files": {"a": {**entry, "bytes": entry["bytes"] + 1}}}))
    with pytest.raises(BundleError, match="the file a has more than 10,000,000,000 bytes"):
        verify(sealed)

    (sealed / "manifest.json").write_text(json.dumps({"files": {"a": entry}}))
    with pytest.raises(BundleError, match="the file a is missing"):
        verify(sealed)

    (sealed / "manifest.json").write_text(" " * manifest.MAX_MANIFEST_BYTES)
    with pytest.raises(BundleError, match="isn't a manifest"):
        verify(sealed)

    (sealed / "manifest.json").write_text(" " * (manifest.MAX_MANIFEST_BYTES + 1))
    for read in (verify, digest):
        with pytest.raises(BundleError, match="more than 1,000,000 bytes"):
            read(sealed)


def test_a_folder_has_bounds(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_FILES", 2)
    verify(sealed)

    monkeypatch.setattr(manifest, "MAX_FILES", 1)
    with pytest.raises(BundleError, match=r"manifest\.json names more than 1 files"):
        verify(sealed)

    (sealed / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(BundleError, match="has more than 1 files"):
        verify(sealed)


def test_the_digest_can_be_demanded_and_another_is_told_before_a_file_is_read(sealed: Path, hashed: list[str]) -> None:
    expected = verify(sealed)
    assert verify(sealed, expected) == expected
    assert hashed
    hashed.clear()

    (sealed / "trainyard.json").write_text("{}")
    sealed_again = write_manifest(sealed)
    hashed.clear()

    with pytest.raises(BundleError, match=f"has the digest {sealed_again}, and {expected} was expected; "):
        verify(sealed, expected)
    (sealed / "manifest.json").write_text("no manifest, and never parsed")
    with pytest.raises(BundleError, match="was expected"):
        verify(sealed, expected)
    assert not hashed


@pytest.mark.parametrize("expect", ["", "0" * 63, "0" * 65, "g" * 64, "sha256:" + "0" * 57, "0" * 64 + "\n"])
def test_a_malformed_digest_is_wrong_usage(sealed: Path, expect: str) -> None:
    with pytest.raises(UsageError, match="isn't a digest"):
        verify(sealed, expect)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["a", "0" * 64]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["files", "a", "sha256", "bytes"]), inner),
)


@settings(max_examples=200)
@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_manifest_is_nothing_but_our_error_comes(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_manifest"
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(b"")
    (folder / "manifest.json").write_bytes(content)

    with pytest.raises(BundleError):
        verify(folder)


@given(data=st.data())
def test_no_byte_can_be_changed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any_byte"
    shutil.rmtree(folder, ignore_errors=True)
    expected = digest(seal(folder))
    path = folder / data.draw(st.sampled_from(["trainyard.json", "samples/a.txt", "manifest.json"]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    with pytest.raises(BundleError):
        verify(folder, expected)


def test_what_is_left_out_may_be_missing_and_nothing_else(sealed: Path) -> None:
    own = digest(sealed)
    assert verify(sealed, left_out=["samples/a.txt", "other"]) == own, "it may be there"
    (sealed / "samples" / "a.txt").write_text("b")
    with pytest.raises(BundleError, match=r"samples/a\.txt was changed"):
        verify(sealed, left_out=["samples/a.txt"])

    (sealed / "samples" / "a.txt").unlink()
    assert verify(sealed, own, left_out=["samples/a.txt"]) == own
    with pytest.raises(BundleError, match=r"samples/a\.txt is missing"):
        verify(sealed, own, left_out=["a.txt"])

    (sealed / "other").write_text("")
    with pytest.raises(BundleError, match="other isn't in the manifest"):
        verify(sealed, left_out=["samples/a.txt", "other"])
