"""Hostile archives: nothing lands outside, no code that was brought along runs, and what was changed is refused."""

from __future__ import annotations

import stat
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
from trainyard.artifacts.export_record import FormatRow, open_trusted
from trainyard.artifacts.manifest import MAX_FILES, digest
from trainyard.base.errors import BundleError, UsageError
from trainyard.base.files import sha256_file
from trainyard.torchserve import archive as archives
from trainyard.torchserve.archive import Model, make_archive, unpack
from trainyard.torchserve.deployment import PACKAGE
from trainyard.torchserve.settings import Settings

EXPORT = "deployed/exports/one"
BUNDLE = "deployed/bundle"
CONFIG = "model-config.yaml"
MAR = "MAR-INF/MANIFEST.json"

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


@pytest.fixture
def good(bare_run: Path, make_export: MakeExport, row: Row, tmp_path: Path) -> Path:
    make_export(row("onnx"), row("onnx-int8"))
    return make_archive(
        Model("digits", "1.0", Settings(format="onnx", workers=1), open_trusted(bare_run)), tmp_path / "good.mar"
    )


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def info(name: str, **values: object) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    made.create_system, made.external_attr = 3, 0o100644 << 16
    for key, value in values.items():
        setattr(made, key, value)
    return made


def write(path: Path, files: Mapping[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """Writes files as ``make_archive`` does, and more of any kind."""
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:  # of names that come twice
        for made, content in [(info(name), files[name]) for name in sorted(files)] + list(more):
            archive.writestr(made, content)
    return path


def opened(path: Path, *expect: str) -> Model:
    folder = path.parent / f"{path.stem}-unpacked-{len(list(path.parent.iterdir()))}"
    folder.mkdir()
    return unpack(path, folder, expect)


def refused(path: Path, says: str, *expect: str) -> None:
    before = {place for place in path.parent.parent.rglob("*") if place.suffix != ".mar"}
    with pytest.raises(BundleError, match=says) as caught:
        opened(path, *expect)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    new = {place for place in path.parent.parent.rglob("*") if place.suffix != ".mar"} - before
    assert all(any("-unpacked-" in part for part in place.parts) for place in new), "nothing lands outside"


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 1000, b"PK\x05\x06" + b"\0" * 17])
def test_what_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(content)

    refused(tmp_path / "a.mar", "can't be unpacked")


def test_an_empty_zip_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", {}), f"has no {CONFIG}")


def test_no_archive_is_wrong_usage(tmp_path: Path) -> None:
    for place in (tmp_path / "a.mar", tmp_path):
        with pytest.raises(UsageError, match="there is no archive"):
            opened(place)


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "deployed/../../evil", "/etc/passwd", "..", "deployed/bundle/..", "..\\evil", "C:evil",
     "deployed/./x", "deployed//x", "x\x01", "x\n", "é", "a" * 300, "x|y", "d/", "/".join("a" * 30)],
)  # fmt: skip
def test_a_name_that_is_not_plain_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", contents(good), (info(name), b"")), "isn't a plain one")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_link_is_refused_and_all_that_is_no_file(mode: int, good: Path, tmp_path: Path) -> None:
    entry = info(f"{BUNDLE}/model.safetensors", external_attr=(mode | 0o777) << 16)

    refused(write(tmp_path / "a.mar", contents(good), (entry, b"/etc/passwd")), "is a link, or no regular file")


def test_two_files_of_one_name_are_refused(good: Path, tmp_path: Path) -> None:
    for name in (f"{BUNDLE}/trainyard.json", CONFIG, f"{BUNDLE}/trainyard.json/x"):
        refused(write(tmp_path / "a.mar", contents(good), (info(name), b"{}")), "can't be unpacked")


def test_a_bomb_is_refused(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = info("deployed/bundle/bomb", compress_type=zipfile.ZIP_DEFLATED)
    refused(write(tmp_path / "a.mar", contents(good), (bomb, b"\0" * 50_000_000)), "bomb is compressed")
    many = [(info(f"deployed/{i}"), b"") for i in range(MAX_FILES)]
    refused(write(tmp_path / "b.mar", contents(good), *many), "more than 10,000 files")
    monkeypatch.setattr(archives, "MAX_BYTES", 10_000)
    refused(good, "or 10,000 bytes")


@pytest.mark.parametrize("name", ["deployed/x", "deployed/export/x", f"{EXPORT}/evil.so", f"{BUNDLE}/x"])
def test_a_file_that_was_added_to_what_is_deployed_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    refused(write(tmp_path / "a.mar", {**contents(good), name: b""}), "doesn't belong there|isn't in the manifest")


@pytest.mark.parametrize(
    "name",
    [MAR, f"{EXPORT}/model.onnx", f"{EXPORT}/export.json", f"{BUNDLE}/trainyard.json",
     f"{BUNDLE}/manifest.json", f"{EXPORT}/manifest.json"],
)  # fmt: skip
def test_a_changed_or_missing_file_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    flipped = bytes([files[name][0] ^ 1]) + files[name][1:]

    refused(
        write(tmp_path / "a.mar", {**files, name: flipped}), "changed|can't be read|isn't a manifest|another bundle"
    )
    del files[name]
    refused(write(tmp_path / "b.mar", files), "missing|has no")


def test_two_exports_are_refused(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    more = {name.replace("/one/", "/two/"): content for name, content in files.items() if name.startswith(EXPORT)}

    refused(write(tmp_path / "a.mar", {**files, **more}), "has 2 exports")
    gone = {name.replace("/one/", "/two/"): content for name, content in files.items()}
    refused(write(tmp_path / "b.mar", gone), "holds the export one")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "a: [", "!!python/object/apply:os.system ['true']", "{}", "&a [*a]", "handler: " + "[" * 5000, "\xff",
     "a: &a [x]\nb: [*a, *a]\n", " " * 64_001],
)  # fmt: skip
def test_a_config_that_is_none_is_refused(text: str, good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mar", {**contents(good), CONFIG: text.encode("latin-1")})

    refused(path, f"{CONFIG}")


@pytest.mark.parametrize(
    "changes",
    [{"maxWorkers": 0}, {"maxWorkers": 100_000}, {"batchSize": "8"}, {"batchSize": True}, {"maxBatchDelay": -1},
     {"handler": {"format": "../x", "threads": 1, "device": "cpu"}}, {"handler": {"threads": 1}}, {"handler": 1},
     {"handler": {"format": "onnx", "workers": 1, "threads": 1, "evil": 1}}, {"responseTimeout": 10**9}],
    ids=str,
)  # fmt: skip
def test_a_config_with_other_values_is_refused(changes: dict[str, object], good: Path, tmp_path: Path) -> None:
    files = contents(good)
    config = yaml.safe_dump({**yaml.safe_load(files[CONFIG]), **changes}, sort_keys=False).encode()

    refused(write(tmp_path / "a.mar", {**files, CONFIG: config}), "model-config.yaml can't be read")


@pytest.mark.parametrize(("old", "new"), [('"digits"', '"../x"'), ('"1.0"', '"1/0"'), ("{", "["), ('"digits"', "1")])
def test_a_manifest_of_torchserve_with_other_values_is_refused(old: str, new: str, good: Path, tmp_path: Path) -> None:
    files = contents(good)
    changed = files[MAR].decode().replace(old, new).encode()

    refused(write(tmp_path / "a.mar", {**files, MAR: changed}), "MANIFEST.json can't be read")


def test_what_it_is_to_run_must_be_in_it(good: Path, tmp_path: Path) -> None:
    files = contents(good)
    for format, says in (("eager", "exports doesn't belong there"), ("onnx-int8", "is missing"),
                         ("aoti", "has no file of aoti|isn't in the manifest|is missing")):  # fmt: skip
        config = files[CONFIG].replace(b"format: onnx\n", f"format: {format}\n".encode())
        refused(write(tmp_path / "a.mar", {**files, CONFIG: config}), says)


def test_the_archives_own_hash_vouches_for_all_of_it(good: Path) -> None:
    assert opened(good, "f" * 64, sha256_file(good)).name == "digits"


def test_the_digest_of_the_export_or_of_the_bundle_vouches_for_the_model(good: Path, bare_run: Path) -> None:
    export, bundle = digest(bare_run / "exports" / "one"), digest(bare_run / "bundle")
    assert opened(good, export).opened.export is not None
    for expect in ("f" * 64, bundle):
        refused(good, f"has the digest {export}, which isn't among those expected", expect)

    make_archive(Model("digits", "1.0", Settings(format="eager"), open_trusted(bare_run, "eager")), good)
    assert opened(good, bundle).opened.export is None
    refused(good, f"has the digest {bundle}", export)


@pytest.mark.parametrize("name", ["handler.py", f"{PACKAGE}/inference/predictor.py", f"{PACKAGE}/evil.py", "numpy.py"])
def test_code_that_was_brought_along_is_left_out(name: str, good: Path, bare_run: Path, tmp_path: Path) -> None:
    files = contents(good)
    path = write(tmp_path / "a.mar", {**files, name: files.get(name, b"") + b"\nraise SystemExit('evil')\n"})

    for expect in ([], [digest(bare_run / "exports" / "one")], [sha256_file(path)]):
        found = opened(path, *expect)
        assert not list(found.opened.bundle.path.parents[1].rglob("*.py")), "it isn't even unpacked"
        again = make_archive(found, tmp_path / "again.mar")
        assert again.read_bytes() == good.read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_byte_is_changed_the_same_is_served(
    data: st.DataObject, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A change in what is deployed is refused, and others make no difference."""
    content = bytearray(made.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 20_000, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("changed") / "changed.mar"
    path.write_bytes(content)

    with pytest.raises(BundleError):
        opened(path, sha256_file(made))
    try:
        found = opened(path)
    except BundleError:
        return
    again = make_archive(found, path.with_name("again.mar"))
    assert again.read_bytes() == made.read_bytes()


@pytest.fixture(scope="session")
def made(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a small run; don't change it."""
    path = tmp_path_factory.mktemp("made") / "made.mar"
    return make_archive(Model("digits", "1.0", Settings(format="eager"), open_trusted(digits_run, "eager")), path)


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
