"""Sealed folders: what is changed, missing or additional is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainyard.core.bundle import Bundle, find_bundle, read_facts
from trainyard.core.manifest import digest, verify, write_manifest
from trainyard.errors import BundleError, UsageError


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "samples").mkdir(parents=True)
    (folder / "trainyard.json").write_text('{"schema_version": 1}')
    (folder / "samples" / "a.txt").write_text("a")
    write_manifest(folder)
    return folder


def test_an_untouched_folder_passes_and_its_digest_is_its_content(sealed: Path, tmp_path: Path) -> None:
    moved = sealed.rename(tmp_path / "moved")

    assert verify(moved) == digest(moved)


def test_a_changed_file_is_refused_by_name(sealed: Path) -> None:
    (sealed / "samples" / "a.txt").write_text("b")

    with pytest.raises(BundleError, match=r"samples/a\.txt was changed"):
        verify(sealed)


def test_a_missing_file_is_refused_by_name(sealed: Path) -> None:
    (sealed / "samples" / "a.txt").unlink()

    with pytest.raises(BundleError, match=r"samples/a\.txt is missing"):
        verify(sealed)


def test_an_additional_file_is_refused_by_name(sealed: Path) -> None:
    (sealed / "extra.py").write_text("")

    with pytest.raises(BundleError, match=r"extra\.py isn't in the manifest"):
        verify(sealed)


def test_a_link_is_refused(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a")
    (sealed / "samples" / "a.txt").unlink()
    (sealed / "samples" / "a.txt").symlink_to(tmp_path / "target")

    with pytest.raises(BundleError, match="is a link"):
        verify(sealed)


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"a": 1}}', '{"files": {"../x": {"sha256": "0"}}}'])
def test_a_broken_manifest_is_refused(sealed: Path, content: str) -> None:
    (sealed / "manifest.json").write_text(content)

    with pytest.raises(BundleError, match=r"manifest\.json"):
        verify(sealed)


def test_a_bundle_is_found_from_its_run_and_from_the_experiments_folder(sealed: Path, tmp_path: Path) -> None:
    run = tmp_path / "experiment" / "20260101-000000"
    run.mkdir(parents=True)
    bundle = sealed.rename(run / "bundle")
    (run.parent / "latest").symlink_to(run.name)

    for place in (bundle, run, run.parent):
        assert find_bundle(place) == bundle.resolve()


def test_what_is_no_bundle_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run folder nor a bundle"):
        find_bundle(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UsageError, match="hasn't finished"):
        find_bundle(tmp_path)


def test_an_unsealed_bundle_is_refused(sealed: Path) -> None:
    (sealed / "manifest.json").unlink()

    with pytest.raises(BundleError, match="isn't a sealed bundle"):
        Bundle.open(sealed)


def test_facts_of_a_newer_version_or_without_keys_are_refused(sealed: Path) -> None:
    with pytest.raises(BundleError, match=r"trainyard\.json can't be read"):
        read_facts(sealed)
    (sealed / "trainyard.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(BundleError, match="update it"):
        read_facts(sealed)
