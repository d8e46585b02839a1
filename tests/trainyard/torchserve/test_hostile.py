"""Hostile archives: each is refused for what is wrong with it, before any of its content is unpacked or parsed."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard import cli
from trainyard.artifacts.bundle import WEIGHTS
from trainyard.artifacts.export_record import FormatRow, open_trusted
from trainyard.artifacts.manifest import MAX_FILES, digest
from trainyard.base.errors import BundleError, UsageError
from trainyard.base.files import sha256_file
from trainyard.torchserve import archive_check, zipped
from trainyard.torchserve.archive import make_archive
from trainyard.torchserve.archive_check import check_archive
from trainyard.torchserve.modules import PACKAGE
from trainyard.torchserve.settings import Settings, read_model_config

EXPORT = "deployed/exports/one"
BUNDLE = "deployed/bundle"
CONFIG = "model-config.yaml"
MAR = "MAR-INF/MANIFEST.json"

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


@pytest.fixture
def good(bare_run: Path, make_export: MakeExport, row: Row, tmp_path: Path) -> Path:
    make_export(row("onnx"), row("onnx-int8"))
    opened = open_trusted(bare_run)
    return make_archive(opened, "onnx", tmp_path / "good.mar", "digits", "1.0", Settings(workers=1))


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails as soon as a content is read or parsed."""

    def fail(*_: object) -> None:
        raise AssertionError("content was looked at")

    for place, name in ((zipped.Zipped, "read"), (zipped.Zipped, "sha256"), (archive_check, "read_model_config"),
                        (archive_check, "compare"), (archive_check, "check_facts")):  # fmt: skip
        monkeypatch.setattr(place, name, fail)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def info(name: str, **values: object) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    made.create_system, made.external_attr = 3, 0o100644 << 16
    for key, value in values.items():
        setattr(made, key, value)
    return made


def write(path: Path, files: Mapping[str, bytes], *more: tuple[zipfile.ZipInfo, bytes], comment: bytes = b"") -> Path:
    """Writes files as ``make_archive`` does, and more of any kind."""
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:  # of names that come twice
        for made, content in [(info(name), files[name]) for name in sorted(files)] + list(more):
            archive.writestr(made, content)
        archive.comment = comment
    return path


def sealed(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with manifests that fit them: what somebody makes who knows how it is done."""
    files = {**files}
    for folder in (f"{BUNDLE}/", f"{EXPORT}/", ""):
        old = json.loads(files[f"{folder}manifest.json"])["files"]
        present = {name.removeprefix(folder) for name in files if name.startswith(folder)} - {"manifest.json"}
        entries = {
            name: {"sha256": hashlib.sha256(files[folder + name]).hexdigest(), "bytes": len(files[folder + name])}
            if name in present
            else old[name]
            for name in sorted(present | set(old))
            if name in present or name in (WEIGHTS, "model.int8.onnx")
        }
        files[f"{folder}manifest.json"] = (json.dumps({"files": entries}, indent=2) + "\n").encode()
    return files


def refused(path: Path, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        check_archive(path)
    assert str(path) in str(caught.value) or CONFIG in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_written_by_hand_in_the_same_way_passes(good: Path, tmp_path: Path) -> None:
    """So that the tests below are refused for what they change, and for nothing else."""
    assert write(tmp_path / "b.mar", sealed(contents(good))).read_bytes() != b""
    assert check_archive(tmp_path / "b.mar").name == "digits"
    assert write(tmp_path / "c.mar", contents(good)).read_bytes() == good.read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 1000, b"PK\x05\x06" + b"\0" * 17, b"PK\x05\x06" + b"\0" * 40])
def test_what_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(content)

    refused(tmp_path / "a.mar", "it isn't a zip")


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", {}), "has no deployed/bundle/manifest.json")


def test_no_archive_is_wrong_usage(tmp_path: Path) -> None:
    for place in (tmp_path / "a.mar", tmp_path):
        with pytest.raises(UsageError, match="there is no archive"):
            check_archive(place)


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "deployed/../../evil", "/etc/passwd", "..", "deployed/bundle/..", "..\\evil", "C:evil", "c:/evil",
     "deployed\\bundle\\x"],
)  # fmt: skip
@pytest.mark.usefixtures("untouched")
def test_a_name_that_leads_outside_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", contents(good), (info(name), b"")), "leads outside")


@pytest.mark.parametrize(
    "name",
    ["deployed//x", "./x", "deployed/./x", "x\x01", "x\n", "é", "x ", "x.", "deployed/...", "a" * 300, "x|y", "d/"],
)
@pytest.mark.usefixtures("untouched")
def test_a_name_that_is_not_plain_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", contents(good), (info(name), b"")), "isn't a plain one|properties")


@pytest.mark.usefixtures("untouched")
def test_a_name_with_a_nul_is_refused(good: Path, tmp_path: Path) -> None:
    """Python takes the name to end there."""
    path = write(tmp_path / "a.mar", contents(good), (info("handler.pyX/../x"), b""))
    path.write_bytes(path.read_bytes().replace(b"handler.pyX/../x", b"handler.py\0/../x"))

    refused(path, "leads outside")
    path.write_bytes(path.read_bytes().replace(b"handler.py\0/../x", b"handler.py\0/aa/x"))
    refused(path, "isn't a plain one")


@pytest.mark.parametrize(
    ("mode", "says"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFDIR, "no regular file"), (stat.S_IFIFO, "no regular file"),
     (stat.S_IFCHR, "no regular file"), (stat.S_IFSOCK, "no regular file")],
)  # fmt: skip
@pytest.mark.usefixtures("untouched")
def test_a_link_is_refused_and_all_that_is_no_file(mode: int, says: str, good: Path, tmp_path: Path) -> None:
    entry = info(f"{BUNDLE}/model.safetensors", external_attr=(mode | 0o777) << 16)

    refused(write(tmp_path / "a.mar", contents(good), (entry, b"/etc/passwd")), says)


@pytest.mark.parametrize("values", [{"extra": b"\x75\x70\x05\x00\x01abcd"}, {"comment": b"x"}, {"create_system": 0}])
@pytest.mark.usefixtures("untouched")
def test_properties_of_no_use_are_refused(values: dict[str, object], good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", contents(good), (info("x", **values), b"")), "properties that no archive needs")


@pytest.mark.usefixtures("untouched")
def test_two_files_of_one_name_are_refused(good: Path, tmp_path: Path) -> None:
    files = contents(good)

    refused(write(tmp_path / "a.mar", files, (info("handler.py"), b"evil")), "it has handler.py twice")
    refused(write(tmp_path / "b.mar", files, (info("Handler.py"), b"evil")), "Handler.py and handler.py differ by case")
    refused(write(tmp_path / "c.mar", files, (info("handler.py/x"), b"evil")), "handler.py and handler.py are one name")
    refused(write(tmp_path / "d.mar", files, (info("Deployed/x"), b"evil")), "are one name")


@pytest.mark.usefixtures("untouched")
def test_an_encrypted_file_is_refused(good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mar", contents(good))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)

    refused(path, "is encrypted")


@pytest.mark.usefixtures("untouched")
def test_a_bomb_is_refused(good: Path, tmp_path: Path) -> None:
    bomb = info("deployed/bundle/bomb", compress_type=zipfile.ZIP_DEFLATED)

    refused(write(tmp_path / "a.mar", contents(good), (bomb, b"\0" * 50_000_000)), "bomb is compressed")
    assert (tmp_path / "a.mar").stat().st_size < 2_000_000


@pytest.mark.parametrize(("place", "value"), [(20, 1), (24, 4_000_000_000), (24, 0)])
@pytest.mark.usefixtures("untouched")
def test_a_size_that_is_not_so_is_refused(place: int, value: int, good: Path, tmp_path: Path) -> None:
    """Of the last record of the directory: its packed size at 20, its size at 24."""
    content = bytearray(good.read_bytes())
    struct.pack_into("<L", content, content.rindex(b"PK\x01\x02") + place, value)
    (tmp_path / "a.mar").write_bytes(content)
    refused(tmp_path / "a.mar", "is compressed")

    for offset in (20, 24):
        struct.pack_into("<L", content, content.rindex(b"PK\x01\x02") + offset, value)
    (tmp_path / "a.mar").write_bytes(content)
    refused(tmp_path / "a.mar", "says something else")


@pytest.mark.parametrize("place", [4, 6, 7, 36])
@pytest.mark.usefixtures("untouched")
def test_a_version_or_attribute_of_no_use_is_refused(place: int, good: Path, tmp_path: Path) -> None:
    """Python's and Java's readers would stop at a file that needs a later version, in the middle of unpacking."""
    content = bytearray(good.read_bytes())
    content[content.index(b"PK\x01\x02") + place] ^= 64
    changed = tmp_path / "changed.mar"
    changed.write_bytes(content)

    refused(changed, "properties that no archive needs")


@pytest.mark.usefixtures("untouched")
def test_overlapping_files_are_refused(good: Path, tmp_path: Path) -> None:
    """As in a bomb whose files share one content."""
    content = bytearray(good.read_bytes())
    last = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, last + 42, 0)
    (tmp_path / "a.mar").write_bytes(content)

    refused(tmp_path / "a.mar", "overlaps another file")


@pytest.mark.usefixtures("untouched")
def test_a_file_that_only_java_would_see_is_refused(good: Path, tmp_path: Path) -> None:
    """Java goes by the headers before the contents, other programs by the directory at the end."""
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as archive:
        archive.writestr(info("../evil"), b"evil")
    stream = hidden.getvalue()[: hidden.getvalue().index(b"PK\x01\x02")]
    content = good.read_bytes()
    start = content.index(b"PK\x01\x02", content.rindex(b"PK\x03\x04"))
    end = bytearray(content[-22:])
    struct.pack_into("<L", end, 16, start + len(stream))
    (tmp_path / "a.mar").write_bytes(content[:start] + stream + content[start:-22] + end)
    refused(tmp_path / "a.mar", "something lies between its files")

    behind = content[:-22] + stream + content[-22:]
    (tmp_path / "a.mar").write_bytes(behind)
    refused(tmp_path / "a.mar", "its tables don't fit together")


@pytest.mark.usefixtures("untouched")
def test_a_header_that_says_something_else_is_refused(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for old, new in ((b"handler.py", b"../evil.py"), (b"handler.py", b"Handler.py")):
        place = content.index(old, content.index(b"PK\x03\x04"))
        while content[place - 30 : place - 26] != b"PK\x03\x04":
            place = content.index(old, place + 1)
        (tmp_path / "a.mar").write_bytes(content[:place] + new + content[place + len(old) :])
        refused(tmp_path / "a.mar", "its directory says something else of handler.py than the file's own header")


@pytest.mark.usefixtures("untouched")
def test_nothing_may_lie_before_or_behind(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    for changed in (b"#!/bin/sh\n" + content, content + b"\0", content[:-1], content[: len(content) // 2]):
        (tmp_path / "a.mar").write_bytes(changed)
        refused(tmp_path / "a.mar", "its tables don't fit together|it isn't a zip, or something lies behind it")
    refused(write(tmp_path / "b.mar", contents(good), comment=b"x"), "it isn't a zip, or something lies behind it")


@pytest.mark.usefixtures("untouched")
def test_an_archive_has_bounds(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = bytearray(good.read_bytes())
    struct.pack_into("<2H", many, len(many) - 22 + 8, MAX_FILES + 1, MAX_FILES + 1)
    (tmp_path / "a.mar").write_bytes(many)
    refused(tmp_path / "a.mar", "it has more than 10,000 files")

    with (tmp_path / "b.mar").open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no space
    refused(tmp_path / "b.mar", "it has more than 2,147,483,647 bytes")


@pytest.mark.parametrize(
    "name", ["evil.py", "sitecustomize.py", "numpy/__init__.py", "deployed/x", "requirements.txt", "deployed/export/x"]
)
@pytest.mark.usefixtures("untouched")
def test_a_file_that_does_not_belong_there_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mar", {**contents(good), name: b""})

    refused(path, f"{name} doesn't belong into an archive")


@pytest.mark.parametrize("name", [f"{PACKAGE}/evil.py", f"{EXPORT}/evil.so", f"{BUNDLE}/x", "MAR-INF/x"])
def test_an_additional_file_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", {**contents(good), name: b""}), f"the file {name} isn't in the manifest")


@pytest.mark.parametrize("name", ["x", "samples/x", "manifest.json/x"])
def test_a_file_added_to_the_outer_list_alone_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    inner = files[f"{BUNDLE}/manifest.json"]
    files = sealed({**files, f"{BUNDLE}/{name}": b""})
    files = outer({**files, f"{BUNDLE}/manifest.json": inner})

    refused(write(tmp_path / "a.mar", files), f"the file {name} isn't in the manifest|are one name")


def outer(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with an outer manifest alone that fits them."""
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
        if name != "manifest.json"
    }
    return {**files, "manifest.json": json.dumps({"files": entries}).encode()}


@pytest.mark.parametrize(
    "name",
    ["handler.py", f"{PACKAGE}/inference/predictor.py", CONFIG, MAR, f"{EXPORT}/model.onnx", f"{BUNDLE}/trainyard.json",
     f"{BUNDLE}/manifest.json", f"{EXPORT}/manifest.json"],
)  # fmt: skip
def test_a_changed_or_missing_file_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    flipped = bytes([files[name][0] ^ 1]) + files[name][1:]

    refused(write(tmp_path / "a.mar", {**files, name: flipped}), f"the file {name} was changed")
    refused(write(tmp_path / "b.mar", {**files, name: files[name] + b" "}), f"the file {name} was changed")
    del files[name]
    refused(write(tmp_path / "c.mar", files), f"the file {name} is missing|has no {name}")


@pytest.mark.parametrize("name", [f"{EXPORT}/model.onnx", f"{EXPORT}/export.json", f"{BUNDLE}/trainyard.json"])
def test_what_was_sealed_anew_outside_alone_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    changed = outer({**files, name: files[name] + b" "})
    refused(write(tmp_path / "a.mar", changed), f"deployed/.*: the file {Path(name).name} was changed")

    del files[name]
    refused(write(tmp_path / "b.mar", outer(files)), f"deployed/.*: the file {Path(name).name} is missing")


def test_a_bundle_that_was_sealed_anew_is_not_the_exports(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    name = f"{BUNDLE}/trainyard.json"

    refused(write(tmp_path / "a.mar", sealed({**files, name: files[name] + b" "})), "its export is of another bundle")


def test_two_exports_are_refused(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    more = {name.replace("/one/", "/two/"): content for name, content in files.items() if name.startswith(EXPORT)}

    refused(write(tmp_path / "a.mar", {**files, **more}), "has more than one export")
    gone = {name.replace("/one/", "/two/"): content for name, content in files.items()}
    refused(write(tmp_path / "b.mar", outer(gone)), "or has another id")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "!!python/object/apply:os.system ['true']", "{}", "&a [*a]", "handler: " + "[" * 5000, "\xff",
     "a: &a [x]\nb: [*a, *a]\n"],
)  # fmt: skip
def test_a_config_that_is_none_is_refused(text: str, good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mar", outer({**contents(good), CONFIG: text.encode("latin-1")}))

    refused(path, "model-config.yaml can't be read")


@pytest.mark.parametrize(
    "changes",
    [{"minWorkers": 0}, {"maxWorkers": 100_000}, {"batchSize": "8"}, {"batchSize": True}, {"maxBatchDelay": -1},
     {"evil": 1}, {"useVenv": True}, {"handler": {"format": "onnx", "threads": 1}}, {"deviceType": "x"},
     {"handler": {"format": "../x", "threads": 1, "device": "cpu"}}, {"responseTimeout": 10**9}],
    ids=str,
)  # fmt: skip
def test_a_config_with_other_values_is_refused(changes: dict[str, object], good: Path, tmp_path: Path) -> None:
    files = contents(good)
    config = yaml.safe_dump({**yaml.safe_load(files[CONFIG]), **changes}, sort_keys=False).encode()

    refused(write(tmp_path / "a.mar", outer({**files, CONFIG: config})), "model-config.yaml can't be read")


def test_a_config_in_another_spelling_is_refused(good: Path) -> None:
    """Java's parser might take for something else what isn't written as we do."""
    content = contents(good)[CONFIG]
    assert read_model_config(content).handler.format == "onnx"

    for other in (content + b"\n", content.replace(b"batchSize: 8", b"batchSize: 0x8"), b"# x\n" + content,
                  content + b"minWorkers: 1\n", content.replace(b"minWorkers: 1", b"minWorkers: 2")):  # fmt: skip
        with pytest.raises(BundleError, match="isn't as it was written"):
            read_model_config(other)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"handler.py"', '"../handler.py"'), ('"handler.py"', '"evil:run"'), ('"python"', '"LSP"'),
     ('"digits"', '"../x"'), ('"digits"', '"digits", "extensions": "x"'), ('"1.0"', '"1/0"'), ("{", "["),
     ('"digits"', '"digits", "requirementsFile": "x"'), ('"digits"', "1"), ("\n", "\r\n"),
     ('"modelName": "digits"', '"modelName": "a", "modelName": "digits"')],
)  # fmt: skip
def test_a_manifest_of_torchserve_with_other_values_is_refused(old: str, new: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    changed = files[MAR].decode().replace(old, new).encode()
    assert changed != files[MAR]

    refused(write(tmp_path / "a.mar", outer({**files, MAR: changed})), "MANIFEST.json (can't be read|isn't as it was)")


def test_a_config_and_a_manifest_have_bounds(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    for name, size in ((CONFIG, 64_001), (MAR, 64_001), ("manifest.json", 1_000_001)):
        refused(write(tmp_path / "a.mar", outer({**files, name: b" " * size}) if name != "manifest.json"
                      else {**files, name: b" " * size}), f"{name} has more than")  # fmt: skip


def test_what_it_is_to_run_must_be_in_it(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    for format, says in (("eager", "holds what another format needs"), ("onnx-int8", "model.int8.onnx is missing"),
                       ("aoti", "has no file of aoti|isn't in the manifest|is missing")):  # fmt: skip
        config = files[CONFIG].replace(b"format: onnx\n", f"format: {format}\n".encode())
        refused(write(tmp_path / "a.mar", outer({**files, CONFIG: config})), says)


def test_the_archives_own_hash_vouches_for_all_of_it(good: Path) -> None:
    own = sha256_file(good)

    for expect in (own, own.upper(), f"{'f' * 64},{own}", f"{own} {'f' * 64}"):
        assert check_archive(good, expect).sha256 == own
    with pytest.raises(UsageError, match="isn't a digest"):
        check_archive(good, "abc")


def test_the_exports_digest_vouches_for_the_model(good: Path, bare_run: Path) -> None:
    export, bundle = digest(bare_run / "exports" / "one"), digest(bare_run / "bundle")
    assert check_archive(good, export).export == export

    for expect in ("f" * 64, bundle):
        with pytest.raises(BundleError, match=f"SHA-256 {sha256_file(good)}, the export in it the digest {export}, "):
            check_archive(good, expect)
    opened = open_trusted(bare_run, "eager")
    make_archive(opened, "eager", good, "digits", "1.0", Settings(workers=1))
    assert check_archive(good, bundle).bundle == bundle
    with pytest.raises(BundleError, match="the bundle in it the digest"):
        check_archive(good, export)


@pytest.mark.parametrize("name", ["handler.py", f"{PACKAGE}/inference/predictor.py", f"{PACKAGE}/inference/more.py"])
def test_the_exports_digest_does_not_vouch_for_code(name: str, good: Path, bare_run: Path, tmp_path: Path) -> None:
    files = contents(good)
    path = write(tmp_path / "a.mar", outer({**files, name: files.get(name, b"") + b"\nimport os\n"}))
    export = digest(bare_run / "exports" / "one")

    with pytest.raises(BundleError, match=f"the code in {name} isn't that of this installation, and {export} vouches"):
        check_archive(path, export)
    assert check_archive(path, sha256_file(path)).name == "digits"


def test_an_unexpected_archive_is_refused_before_it_is_parsed(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_model_config", "compare", "check_facts"):
        monkeypatch.setattr(archive_check, name, None)

    with pytest.raises(BundleError, match="neither is expected"):
        check_archive(good, "f" * 64)


@settings(max_examples=150)
@given(data=st.data())
def test_no_byte_can_be_changed(data: st.DataObject, made: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is changed but a date, which nothing reads, is refused; with the archive's hash, dates too."""
    content = bytearray(made.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 20_000, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.mar"
    path.write_bytes(content)

    with pytest.raises(BundleError):
        check_archive(path, sha256_file(made))
    try:
        facts = check_archive(path)
    except BundleError:
        return
    assert facts.name == "digits"
    assert contents(path) == contents(made)


@pytest.fixture(scope="session")
def made(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a small run; don't change it."""
    path = tmp_path_factory.mktemp("made") / "made.mar"
    return make_archive(open_trusted(digits_run, "eager"), "eager", path, "digits", "1.0", Settings(workers=1))


@pytest.mark.parametrize("place", ["bundle/extra.py", "exports/one/extra.so"])
def test_a_hostile_run_is_not_archived(
    place: str, bare_run: Path, make_export: MakeExport, row: Row, capsys: pytest.CaptureFixture[str]
) -> None:
    make_export(row("onnx"))

    def archive() -> int:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(sys, "argv", ["trainyard", "archive", str(bare_run)])
            cli.main()
        return int(end.value.code or 0)

    (bare_run / place).write_text("")
    assert archive() == 1
    assert "isn't in the manifest" in capsys.readouterr().err
    (bare_run / place).unlink()
    (bare_run / place).symlink_to("/etc/passwd")
    assert archive() == 1
    assert "is a link" in capsys.readouterr().err
    assert not (bare_run / "archives").exists()
