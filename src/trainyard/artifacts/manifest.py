"""The list of a sealed folder's files with their SHA-256: what is changed, missing or additional is found by name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainyard.base.errors import BundleError, UsageError
from trainyard.base.files import sha256_file, write_json

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1_000_000
MAX_FILES = 10_000
MAX_FILE_BYTES = 10_000_000_000
"""Bounds of what is read before it is known to be the original."""

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a file."""

    sha256: str
    size: int


def write_manifest(folder: Path) -> str:
    """Lists all files of ``folder`` in its ``manifest.json``; returns the folder's digest."""
    files = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in _file_names(folder)
    }
    write_json(folder / MANIFEST, {"files": files})
    return digest(folder)


def digest(folder: Path) -> str:
    """The SHA-256 of the manifest, which names the hash of every file: the folder's name wherever it lies.

    Raises:
        BundleError: there is no manifest, or it is far too large to be one.
    """
    return hashlib.sha256(read_manifest(folder)).hexdigest()


def sealed_names(folder: Path) -> list[str]:
    """The files that a manifest names, sorted.

    Raises:
        BundleError: there is no manifest, or it isn't one.
    """
    return sorted(_parse(read_manifest(folder), folder))


def check_digest(expect: str) -> str:
    """A digest that somebody wrote down, in small letters.

    Raises:
        UsageError: it isn't one.
    """
    if not _SHA256.fullmatch(expect.lower()):
        raise UsageError(f"'{expect}' isn't a digest: give all 64 hexadecimal digits of it")
    return expect.lower()


def check_digests(expect: str) -> frozenset[str]:
    """The digests in a list with commas or spaces between them, in small letters.

    Raises:
        UsageError: one isn't a digest.
    """
    return frozenset(check_digest(word) for word in expect.replace(",", " ").split())


def verify(folder: Path, expect: str | None = None, left_out: Collection[str] = ()) -> str:
    """Compares every file with the manifest before anything parses one; returns the digest.

    All sizes are compared before the first file is hashed, so that a wrong one costs no time.

    Args:
        folder: The sealed folder.
        expect: The digest that it must have. Without it a folder that was sealed anew after a change passes.
        left_out: Names of files that may be missing, because what is deployed doesn't need them.

    Raises:
        UsageError: ``expect`` isn't a digest.
        BundleError: it has another digest, or a file is changed, missing, additional, a link, or out of bounds.
    """
    expect = None if expect is None else check_digest(expect)
    content = read_manifest(folder)
    found = hashlib.sha256(content).hexdigest()
    if expect not in (None, found):
        raise BundleError(
            f"{folder} has the digest {found}, and {expect} was expected; "
            "use the original, or expect this one if you know that it is right"
        )
    recorded = _parse(content, folder)
    present = set(_file_names(folder))
    _compare_names(folder, present, set(recorded), set(left_out))
    there = {name: entry for name, entry in recorded.items() if name in present}
    for name, entry in there.items():
        if (folder / name).stat().st_size != entry.size:
            raise _changed(folder, name)
    for name, entry in there.items():
        if sha256_file(folder / name) != entry.sha256:
            raise _changed(folder, name)
    return found


def compare(where: Path, manifest: bytes, present: Mapping[str, Entry], left_out: Collection[str] = ()) -> None:
    """Compares files that were hashed already, as those in an archive, with the content of their manifest.

    Args:
        where: The folder, for errors.
        manifest: The content of its manifest.
        present: Its files but the manifest, by their POSIX paths.
        left_out: As in ``verify``.

    Raises:
        BundleError: one is changed, missing or additional.
    """
    recorded = _parse(manifest, where)
    _compare_names(where, set(present), set(recorded), set(left_out))
    for name, entry in present.items():
        if recorded[name] != entry:
            raise _changed(where, name)


def check_content(where: Path, manifest: bytes, name: str, content: bytes) -> None:
    """Compares one file with the content of a manifest, before the other files are known.

    Args:
        where: The folder, for errors.
        manifest: The content of its manifest.
        name: The file, by its POSIX path.
        content: What is in it.

    Raises:
        BundleError: it is changed, or additional.
    """
    if _parse(manifest, where).get(name) != Entry(hashlib.sha256(content).hexdigest(), len(content)):
        raise _changed(where, name)


def read_manifest(folder: Path) -> bytes:
    """The manifest of a folder, unread.

    Raises:
        BundleError: there is none, or it is too large.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}: it isn't a sealed bundle or export; use the original")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} can't be read ({error.strerror}): change its permissions") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{folder}: {MANIFEST} has more than {MAX_MANIFEST_BYTES:,} bytes; use the original")
    return content


def _compare_names(folder: Path, present: set[str], recorded: set[str], left_out: set[str]) -> None:
    for name in sorted((present ^ recorded) - (left_out - present)):
        if name in present:
            raise BundleError(f"{folder}: the file {name} isn't in the manifest; remove it or use the original")
        raise BundleError(f"{folder}: the file {name} is missing; use the original")


def _changed(folder: Path, name: str) -> BundleError:
    return BundleError(f"{folder}: the file {name} was changed after it was sealed; use the original")


def _parse(content: bytes, folder: Path) -> dict[str, Entry]:
    try:
        files = json.loads(content.decode("utf-8"))["files"]
        recorded = {str(name): _entry(entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{folder}: {MANIFEST} isn't a manifest; use the original") from error
    if len(recorded) > MAX_FILES:
        raise BundleError(f"{folder}: {MANIFEST} names more than {MAX_FILES:,} files; use the original")
    for name, entry in recorded.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{folder}: {MANIFEST} names {name}, which lies outside; use the original")
        if entry.size > MAX_FILE_BYTES:
            raise BundleError(f"{folder}: the file {name} has more than {MAX_FILE_BYTES:,} bytes; use the original")
    return recorded


def _entry(sha256: object, size: object) -> Entry:
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
        raise ValueError("an entry is a hash and a size")
    return Entry(sha256, size)


def _file_names(folder: Path) -> list[str]:
    """All files below ``folder`` but the manifest, as POSIX paths, sorted. A link could change what it points to."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {name} is a link, and a sealed folder has none; use the original")
        if path.is_dir() or name == MANIFEST:
            continue
        if not path.is_file():
            raise BundleError(f"{folder}: {name} isn't a file; remove it or use the original")
        names.append(name)
        if len(names) > MAX_FILES:
            raise BundleError(f"{folder} has more than {MAX_FILES:,} files; use the original")
    return sorted(names)
