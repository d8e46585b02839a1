"""Exports: found beside their bundle, sealed, of this bundle; and which digest vouches for what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tables import EXPORTED

from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import (
    FACTS,
    BatchInvariance,
    Export,
    FormatRow,
    find_export,
    open_trusted,
    parse_facts,
)
from trainyard.artifacts.manifest import digest, write_manifest
from trainyard.base.errors import BundleError, UsageError

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


@pytest.fixture
def export(make_export: MakeExport, row: Row) -> Path:
    return make_export(row("eager", "reference", file=None), row("onnx"), row("aoti", "refused", reason="wrong"))


def test_latest_is_found_and_each_by_its_id(bare_run: Path, make_export: MakeExport, row: Row) -> None:
    bundle = Bundle.open(bare_run)
    assert find_export(bundle) is None
    with pytest.raises(UsageError, match="there is no export one in .*: make one with trainyard export"):
        find_export(bundle, "one")

    paths = {id: make_export(row("onnx"), id=id) for id in ("one", "two")}

    for name, id in (("latest", "two"), ("one", "one"), ("two", "two")):
        found = find_export(bundle, name)
        assert found is not None
        assert (found.path, found.facts.id, found.digest) == (paths[id].resolve(), id, digest(paths[id]))
    assert found.facts.row("onnx") == row("onnx")
    assert found.facts.row("aoti") is None


def test_an_export_of_another_bundle_is_refused(bare_run: Path, make_export: MakeExport, row: Row) -> None:
    make_export(row("onnx"), bundle="0" * 64)

    with pytest.raises(BundleError, match=r"exported from another bundle \(000000000000\): export this one again"):
        find_export(Bundle.open(bare_run))


def test_a_changed_export_is_refused_and_so_is_a_link_to_nothing(bare_run: Path, export: Path) -> None:
    bundle = Bundle.open(bare_run)
    (export / "model.onnx").write_bytes(b"ONNX")
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        find_export(bundle)

    export.rename(bare_run / "elsewhere")
    with pytest.raises(BundleError, match="isn't a sealed bundle or export"):
        find_export(bundle)


@pytest.mark.parametrize("name", ["../../bundle/model.safetensors", "/etc/hostname", "lost.onnx", ""])
def test_a_row_names_only_a_file_of_the_export(name: str, bare_run: Path, export: Path) -> None:
    facts = json.loads((export / "export.json").read_text())
    facts["formats"][1]["file"] = name
    (export / "export.json").write_text(json.dumps(facts))
    write_manifest(export)

    with pytest.raises(BundleError, match=r"export\.json names .*, which isn't a file of it"):
        find_export(Bundle.open(bare_run))


@pytest.mark.parametrize("content", ["", "{}", "[" * 10_000, '{"schema_version": "1"}', '{"schema_version": 1}', "[]"])
def test_facts_that_cannot_be_read_are_refused(content: str, export: Path) -> None:
    (export / "export.json").write_text(content)
    write_manifest(export)

    with pytest.raises(BundleError, match=r"export\.json can't be read"):
        Export.read(export)


def test_an_older_export_calls_batch_invariance_otherwise(make_export: MakeExport, row: Row) -> None:
    folder = make_export(row("onnx", batch_invariance={"neighbours": 0.5, "padding": 0.25}))
    content = (folder / FACTS).read_text()
    assert content.count('"batch_invariance"') == 1

    older = parse_facts(content.replace('"batch_invariance"', '"company"'), folder)
    assert older == parse_facts(content, folder)
    assert older.formats[0].batch_invariance == BatchInvariance(neighbours=0.5, padding=0.25)


def test_facts_of_a_newer_version_are_refused(export: Path) -> None:
    (export / "export.json").write_text('{"schema_version": 99}')
    write_manifest(export)

    with pytest.raises(BundleError, match="update it"):
        Export.read(export)


def test_without_an_expectation_all_that_fits_together_is_opened(bare_run: Path, export: Path) -> None:
    assert open_trusted(bare_run, "auto") == open_trusted(Bundle.open(bare_run), "onnx")
    assert open_trusted(bare_run).export == Export.read(export.resolve())


def test_eager_needs_no_export(bare_run: Path, export: Path) -> None:
    (export / "model.onnx").unlink()

    assert open_trusted(bare_run, "eager").export is None


def test_the_bundles_digest_vouches_for_eager_alone(bare_run: Path, export: Path) -> None:
    own = digest(bare_run / "bundle")

    for run in (bare_run, Bundle.open(bare_run)):
        for format in ("auto", "eager"):
            assert open_trusted(run, format, expect=own) == (Bundle.open(bare_run), None)
        for format in EXPORTED:
            with pytest.raises(UsageError, match=f"{own} is the bundle's digest, .* for {format}, or choose eager"):
                open_trusted(run, format, expect=own)


def test_the_exports_digest_vouches_for_all(bare_run: Path, export: Path) -> None:
    expect = digest(export)

    for run in (bare_run, Bundle.open(bare_run)):
        assert open_trusted(run, "eager", expect=expect) == (Bundle.open(bare_run), None)
        for format in ("auto", *EXPORTED):
            assert open_trusted(run, format, expect=expect) == (Bundle.open(bare_run), Export.read(export.resolve()))


def test_another_digest_is_told_before_anything_is_hashed_or_parsed(
    bare_run: Path, make_export: MakeExport, row: Row, parsed: list[Path]
) -> None:
    own, other = digest(bare_run / "bundle"), "f" * 64
    with pytest.raises(BundleError, match=f"the digest {own}, there is no export latest of it, and {other} was exp"):
        open_trusted(bare_run, expect=other)
    first = digest(make_export(row("onnx")))
    second = digest(make_export(row("onnx"), row("aoti"), id="two"))
    parsed.clear()

    for expect in (other, first):
        with pytest.raises(BundleError, match=f"the digest {own}, its export latest has {second}, and {expect} was"):
            open_trusted(bare_run, expect=expect)
    assert not parsed
    assert open_trusted(bare_run, export="one", expect=first).export is not None


def test_a_sealed_forgery_is_refused(bare_run: Path, export: Path, parsed: list[Path]) -> None:
    """Whoever changes a file can write the manifest again; only a digest that was noted before tells."""
    own, expect = digest(bare_run / "bundle"), digest(export)
    (bare_run / "bundle" / "model.safetensors").write_bytes(b"forged")
    forged = write_manifest(bare_run / "bundle")
    parsed.clear()

    with pytest.raises(BundleError, match=f"has the digest {forged}"):
        open_trusted(bare_run, "eager", expect=own)
    assert not parsed
    with pytest.raises(BundleError, match="exported from another bundle"):
        open_trusted(bare_run, "onnx", expect=expect)
    assert all(path.is_relative_to(export.resolve()) for path in parsed), "the bundle wasn't looked at"


@pytest.mark.parametrize("expect", ["", "abc", "g" * 64])
def test_what_is_no_digest_is_wrong_usage(bare_run: Path, expect: str) -> None:
    with pytest.raises(UsageError, match="isn't a digest"):
        open_trusted(bare_run, expect=expect)
