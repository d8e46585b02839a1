"""The list of a sealed folder's files with their SHA-256: what is changed, missing or additional is found by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainyard.errors import BundleError
from trainyard.files import sha256_file, write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> str:
    """Lists all files of ``folder`` in its ``manifest.json``; returns the folder's digest."""
    files = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in _file_names(folder)
    }
    write_json(folder / MANIFEST, {"files": files})
    return digest(folder)


def digest(folder: Path) -> str:
    """The SHA-256 of the manifest, which names the hash of every file: the folder's name wherever it lies."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def verify(folder: Path) -> str:
    """Compares every file with the manifest before anything parses one; returns the digest.

    Raises:
        BundleError: names the first file that is changed, missing, additional, or a link.
    """
    recorded = _read(folder)
    present = set(_file_names(folder))
    for name in sorted(present | set(recorded)):
        if name not in recorded:
            raise BundleError(f"{folder}: the file {name} isn't in the manifest; remove it or use the original")
        if name not in present:
            raise BundleError(f"{folder}: the file {name} is missing; use the original")
        if sha256_file(folder / name) != recorded[name]:
            raise BundleError(f"{folder}: the file {name} was changed after it was sealed; use the original")
    return digest(folder)


def _read(folder: Path) -> dict[str, str]:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        recorded = {str(name): str(entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError as error:
        raise BundleError(f"{folder} has no {MANIFEST}: it isn't a sealed bundle") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder}: {MANIFEST} isn't a manifest; use the original") from error
    for name in recorded:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{folder}: {MANIFEST} names {name}, which lies outside; don't use this bundle")
    return recorded


def _file_names(folder: Path) -> list[str]:
    """All files below ``folder`` but the manifest, as POSIX paths, sorted. A link could change what it points to."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {name} is a link, and a bundle has none; use the original")
        if path.is_file() and name != MANIFEST:
            names.append(name)
    return sorted(names)
