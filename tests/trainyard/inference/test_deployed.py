"""What is deployed: a part of a bundle and of an export, and nothing but that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tables import ALL, FILES

from trainyard.artifacts.bundle import WEIGHTS, Bundle
from trainyard.artifacts.export_record import Export, FormatName, FormatRow, sealed_facts
from trainyard.artifacts.manifest import MANIFEST, digest, write_manifest
from trainyard.artifacts.samples import golden_samples
from trainyard.base.errors import BundleError, UsageError
from trainyard.inference.deployed import left_out_of_bundle, left_out_of_export, open_deployed
from trainyard.inference.predictor import Predictor

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


def deploy(run: Path, folder: Path, format: FormatName) -> Path:
    """What an archive holds of a run for a format."""
    shutil.copytree(run / "bundle", folder / "bundle", ignore=lambda *_: left_out_of_bundle(format))
    if format != "eager":
        place = run / "exports" / "one"
        left_out = left_out_of_export(sealed_facts(place), format)
        shutil.copytree(place, folder / "exports" / "one", ignore=lambda *_: left_out)
    return folder


@pytest.fixture
def run(bare_run: Path, make_export: MakeExport, row: Row) -> Path:
    make_export(row("onnx"), row("onnx-int8"), row("torchscript"), row("aoti", "refused", reason="wrong"))
    return bare_run


@pytest.fixture
def deployed(run: Path, tmp_path: Path) -> Path:
    return deploy(run, tmp_path / "deployed", "onnx")


@pytest.mark.parametrize("format", ["onnx", "onnx-int8", "torchscript"])
def test_what_the_format_does_not_need_may_be_missing(format: FormatName, run: Path, tmp_path: Path) -> None:
    folder = deploy(run, tmp_path / "deployed", format)

    bundle, export = open_deployed(folder, format)

    assert bundle.digest == Bundle.open(run).digest, "it keeps its name"
    assert export is not None
    assert export.digest == digest(run / "exports" / "one")
    assert not (bundle.path / WEIGHTS).exists()
    assert [path.name for path in export.path.iterdir() if path.name in FILES.values()] == [FILES[format]]


def test_what_may_be_missing_may_be_there(run: Path, tmp_path: Path) -> None:
    (run / "exports" / "latest").unlink()

    assert open_deployed(run, "onnx").export == Export.read(run / "exports" / "one")


def test_eager_is_the_bundle_alone(run: Path, tmp_path: Path) -> None:
    folder = deploy(run, tmp_path / "deployed", "eager")

    opened = open_deployed(folder, "eager", [digest(folder / "bundle")])

    assert opened == (Bundle.open(folder / "bundle"), None)
    (folder / "bundle" / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=rf"{WEIGHTS} is missing"):
        open_deployed(folder, "eager")


def test_it_answers_as_the_run_does(
    bare_run: Path, make_export: MakeExport, row: Row, onnx_file: Path, tmp_path: Path
) -> None:
    make_export(row("onnx"), row("aoti"), files={"model.onnx": onnx_file.read_bytes()})
    folder = deploy(bare_run, tmp_path / "deployed", "onnx")
    items = [sample.item for sample in golden_samples(bare_run / "bundle")]

    predictor = Predictor(open_deployed(folder, "onnx"), "onnx")

    whole = Predictor(bare_run, "onnx")
    assert predictor.deployed == whole.deployed
    assert (predictor.probabilities(items) == whole.probabilities(items)).all()


@pytest.mark.parametrize("format", ALL)
def test_no_format_leaves_out_what_it_runs(format: FormatName, make_export: MakeExport, row: Row) -> None:
    facts = sealed_facts(make_export(row("eager", "reference"), *(row(name) for name in FILES)))
    kept = set(FILES.values()) - left_out_of_export(facts, format)

    assert kept == ({FILES[format]} if format in FILES else set())
    assert (WEIGHTS in left_out_of_bundle(format)) == (format != "eager")


@pytest.mark.parametrize(
    "name",
    ["bundle/trainyard.json", "bundle/samples/golden.jsonl", "exports/one/export.json", "exports/one/model.onnx"],
)
def test_all_else_must_be_there_and_as_it_was(name: str, deployed: Path) -> None:
    content = (deployed / name).read_bytes()
    (deployed / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(BundleError, match=f"{Path(name).name} was changed"):
        open_deployed(deployed, "onnx")

    (deployed / name).unlink()
    with pytest.raises(BundleError, match=f"{Path(name).name} is missing"):
        open_deployed(deployed, "onnx")


@pytest.mark.parametrize(
    "name",
    ["extra", "bundle/extra.py", "bundle/samples/extra", "exports/one/extra.so", "exports/two/x", "exports/file"],
)
def test_an_additional_file_is_refused(name: str, deployed: Path, parsed: list[Path]) -> None:
    (deployed / name).parent.mkdir(exist_ok=True)
    (deployed / name).write_text("")

    with pytest.raises(BundleError, match="doesn't belong there|isn't in the manifest|has 2 exports"):
        open_deployed(deployed, "onnx")
    assert not [path for path in parsed if path.is_relative_to(deployed / name.partition("/")[0])]


@pytest.mark.parametrize(
    "name", ["bundle", "exports", "exports/one", "bundle/trainyard.json", "exports/one/model.onnx"]
)
def test_a_link_is_refused(name: str, deployed: Path, tmp_path: Path) -> None:
    (deployed / name).rename(tmp_path / "target")
    (deployed / name).symlink_to(tmp_path / "target")

    with pytest.raises(BundleError, match="isn't a folder|is a link"):
        open_deployed(deployed, "onnx")


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "has no folder bundle"), ("bundle", "has no folder bundle"), ("exports", "has no folder exports"),
     ("exports/one", "has 0 exports"), (f"bundle/{MANIFEST}", "isn't a sealed bundle"),
     (f"exports/one/{MANIFEST}", "isn't a sealed bundle or export")],
)  # fmt: skip
def test_what_is_not_there_is_told(name: str, says: str, deployed: Path) -> None:
    place = deployed / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()

    with pytest.raises(BundleError, match=says):
        open_deployed(deployed, "onnx")


def test_a_file_that_was_left_out_does_not_come_back_as_another(deployed: Path) -> None:
    (deployed / "bundle" / WEIGHTS).write_bytes(b"forged")

    with pytest.raises(BundleError, match=f"{WEIGHTS} was changed"):
        open_deployed(deployed, "onnx")


@pytest.mark.parametrize("format", ["onnx-int8", "aoti", "aoti-int8"])
def test_a_format_that_is_not_in_it_is_refused(format: FormatName, deployed: Path) -> None:
    with pytest.raises(BundleError, match=f"has no file of {format}|the file {FILES[format]} is missing"):
        open_deployed(deployed, format)


def test_an_export_under_another_name_is_refused(deployed: Path) -> None:
    (deployed / "exports" / "one").rename(deployed / "exports" / "two")

    with pytest.raises(BundleError, match="two holds the export one"):
        open_deployed(deployed, "onnx")


def test_a_bundle_that_was_not_exported_is_refused_before_it_is_parsed(deployed: Path, parsed: list[Path]) -> None:
    facts = json.loads((deployed / "bundle" / "trainyard.json").read_text())
    (deployed / "bundle" / "trainyard.json").write_text(json.dumps({**facts, "name": "forged"}))
    (deployed / "bundle" / MANIFEST).unlink()
    write_manifest(deployed / "bundle")
    parsed.clear()

    with pytest.raises(BundleError, match="exported from another bundle"):
        open_deployed(deployed, "onnx")
    assert all(path.is_relative_to(deployed / "exports") for path in parsed)


def test_the_exports_digest_vouches_and_one_of_several_is_enough(deployed: Path, run: Path) -> None:
    own = digest(run / "exports" / "one")

    for expect in ([own], [own.upper()], ["f" * 64, own], ()):
        assert open_deployed(deployed, "onnx", expect).export is not None


def test_another_digest_is_told_before_anything_is_hashed_or_parsed(deployed: Path, parsed: list[Path]) -> None:
    bundle = digest(deployed / "bundle")

    for expect in (["f" * 64], [bundle], ["f" * 64, bundle]):
        with pytest.raises(BundleError, match="has the digest .*, which isn't among those expected"):
            open_deployed(deployed, "onnx", expect)
    with pytest.raises(UsageError, match="'abc' isn't a digest"):
        open_deployed(deployed, "onnx", ["abc"])
    assert not parsed


def test_a_sealed_forgery_of_eager_is_refused(run: Path, tmp_path: Path, parsed: list[Path]) -> None:
    folder = deploy(run, tmp_path / "deployed", "eager")
    own = digest(folder / "bundle")
    (folder / "bundle" / WEIGHTS).write_bytes(b"forged")
    (folder / "bundle" / MANIFEST).unlink()
    write_manifest(folder / "bundle")
    parsed.clear()

    with pytest.raises(BundleError, match="isn't among those expected"):
        open_deployed(folder, "eager", [own])
    assert not parsed
