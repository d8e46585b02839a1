"""Where a bundle is found, and what it must hold; see test_manifest for what sealing means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainyard.artifacts.bundle import Bundle, find_bundle, read_facts
from trainyard.artifacts.manifest import write_manifest
from trainyard.base.errors import BundleError, UsageError


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "samples").mkdir(parents=True)
    (folder / "trainyard.json").write_text('{"schema_version": 1}')
    (folder / "samples" / "a.txt").write_text("a")
    write_manifest(folder)
    return folder


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
    (sealed / "trainyard.json").write_text("[" * 10_000)
    with pytest.raises(BundleError, match=r"trainyard\.json can't be read"):
        read_facts(sealed)
    (sealed / "trainyard.json").write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(BundleError, match="update it"):
        read_facts(sealed)
