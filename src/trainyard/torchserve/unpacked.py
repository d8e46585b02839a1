"""Opens an archive for what is deployed in it. The code that it carries is never unpacked, and so never run."""

from __future__ import annotations

import json
import re
import shutil
import stat
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from trainyard.artifacts.export_record import Opened
from trainyard.artifacts.manifest import MAX_FILES
from trainyard.base.errors import BundleError, UsageError
from trainyard.base.files import sha256_file
from trainyard.inference.deployed import open_deployed
from trainyard.torchserve.archive import DEPLOYED, MAR_MANIFEST, MAX_BYTES, MODEL_CONFIG, check_name
from trainyard.torchserve.settings import Settings

MAX_TEXT_BYTES = 64_000
"""Of each of the two files that say how a model is served."""
_NAME = re.compile(r"[A-Za-z0-9_+=@%,. -]{1,255}(/[A-Za-z0-9_+=@%,. -]{1,255}){0,15}")


@dataclass(frozen=True)
class Unpacked:
    """What an archive holds besides code.

    Attributes:
        name: The model's name.
        version: The model's version.
        settings: How it is served.
        opened: The verified bundle and, unless the format is ``eager``, the export.
    """

    name: str
    version: str
    settings: Settings
    opened: Opened


def unpack(path: Path, folder: Path, expect: Collection[str] = ()) -> Unpacked:
    """Unpacks an archive and compares what is deployed with its manifests.

    Args:
        path: The archive.
        folder: An empty folder that only this user can write. What is there later is as it was verified.
        expect: Digests of which one must be the archive's SHA-256, or that of the export in it (of ``eager``, of the
            bundle).

    Raises:
        UsageError: there is no such file.
        BundleError: it is refused; says why.
    """
    if not path.is_file():
        raise UsageError(f"there is no archive {path}: make one with trainyard archive RUN")
    copy = folder / path.name
    shutil.copyfile(path, copy)  # so that what is hashed is what is unpacked
    vouched = bool(expect) and sha256_file(copy) in expect
    try:
        _extract(copy, folder)
        settings = Settings.from_yaml(_text(folder, MODEL_CONFIG))
        name, version = _name_and_version(_text(folder, MAR_MANIFEST))
        opened = open_deployed(folder / DEPLOYED, settings.format, () if vouched else expect)
    except BundleError as error:
        said = str(error).replace(f"{folder}/", f"{path}: ")
        raise BundleError(said if str(path) in said else f"{path}: {said}") from error
    copy.unlink()
    return Unpacked(name, version, settings, opened)


def _extract(archive: Path, folder: Path) -> None:
    """Unpacks what is deployed and the two files that say how; nothing else is looked at."""
    try:
        with ZipFile(archive) as zipped:
            members = zipped.infolist()
            if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
                raise BundleError(f"it has more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes: use a smaller format")
            for member in members:
                _check(member)
                if member.filename in (MAR_MANIFEST, MODEL_CONFIG) or member.filename.startswith(f"{DEPLOYED}/"):
                    place = folder / member.filename
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with zipped.open(member) as source, place.open("xb") as target:
                        shutil.copyfileobj(source, target)
    except (BadZipFile, FileExistsError, NotADirectoryError, NotImplementedError, RuntimeError, EOFError, ValueError,
            struct.error) as error:  # fmt: skip
        raise BundleError(f"it can't be unpacked ({error}): archive the model again") from error


def _check(member: ZipInfo) -> None:
    """Refuses a member that ``make_archive`` wouldn't write: a bomb, a link, a name that leads outside."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise BundleError(f"the name {name[:255]!r} isn't a plain one: archive the model again")
    if member.compress_type != ZIP_STORED or member.compress_size != member.file_size:
        raise BundleError(f"{name} is compressed: archive the model again")
    if kind not in (0, stat.S_IFREG):
        raise BundleError(f"{name} is a link, or no regular file: archive the model again")


def _text(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        raise BundleError(f"it has no {name}, or one of more than {MAX_TEXT_BYTES:,} bytes: archive the model again")
    return path.read_bytes()


def _name_and_version(content: bytes) -> tuple[str, str]:
    try:
        model = json.loads(content)["model"]
        name, version = model["modelName"], model["modelVersion"]
        check_name(name, version)  # raises TypeError where one isn't text
    except (ValueError, LookupError, TypeError, RecursionError, UsageError) as error:
        first_line = str(error).partition("\n")[0]
        raise BundleError(f"{MAR_MANIFEST} can't be read ({first_line}): archive the model again") from error
    return name, version
