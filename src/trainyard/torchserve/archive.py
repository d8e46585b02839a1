"""Makes and opens a ``.mar``: an archive from which any TorchServe serves a model without anything else.

    MAR-INF/MANIFEST.json     TorchServe's own: the model's name and version, and what to load
    handler.py                the handler
    model-config.yaml         workers, batches, and what the handler is to run: see ``settings``
    tuning.json               what was measured to choose these, if something was
    trainyard/                this package; project/ is the owner's where the format needs it
    deployed/bundle/          the bundle, without weights where an exported format answers
    deployed/exports/ID/      the export, with the file of that format alone

The same content gives the same bytes: the files are sorted, undated and not compressed. What is opened is what is
deployed; the code that an archive carries is never unpacked here, and so never run.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import stat
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias, TypeVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import yaml

import trainyard
from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import EXPORTS, Export, FormatName, Opened
from trainyard.artifacts.manifest import MANIFEST, MAX_FILES, sealed_names
from trainyard.base.errors import EXIT_REFUSED, BundleError, TrainyardError, UsageError
from trainyard.base.files import atomic_write, sha256_file
from trainyard.base.project import find_project
from trainyard.formats.table import find_format
from trainyard.inference.deployed import BUNDLE, left_out_of_bundle, left_out_of_export, open_deployed
from trainyard.inference.selection import check_device
from trainyard.torchserve.deployment import HANDLER, served_code
from trainyard.torchserve.settings import Device, Settings

MAR_MANIFEST = "MAR-INF/MANIFEST.json"
MODEL_CONFIG = "model-config.yaml"
TUNING = "tuning.json"
DEPLOYED = "deployed"
SUFFIX = ".mar"
DEFAULT_VERSION = "1.0"
MAX_BYTES = 2**31 - 1
"""Of an archive. Beyond it a zip has a second form of its tables."""

T = TypeVar("T")
Content: TypeAlias = bytes | Path
_UNDATED = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can say."""
_MODE = 0o100644
MAX_TEXT_BYTES = 64_000
"""Of each of the two files that say how a model is served."""
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_MEMBER = re.compile(r"[A-Za-z0-9_+=@%,. -]{1,255}(/[A-Za-z0-9_+=@%,. -]{1,255}){0,15}")


class NotArchivedError(TrainyardError):
    """A format that the gate of the export stopped isn't served either."""

    exit_code = EXIT_REFUSED


@dataclass(frozen=True)
class Model:
    """A model as it is archived and served.

    Attributes:
        name: Its name in URLs; see ``check_name``.
        version: Its version there.
        settings: How it is served, the format included.
        opened: The verified bundle, with the export that the format is of.
    """

    name: str
    version: str
    settings: Settings
    opened: Opened

    @property
    def answers(self) -> Bundle | Export:
        """What answers, and is to be expected by its digest: the export, of ``eager`` the bundle."""
        bundle, export = self.opened
        return bundle if export is None or self.settings.format == "eager" else export


def make_archive(model: Model, path: Path, tuning: Json | None = None, is_batched: bool = False) -> Path:
    """Writes the archive of a model, atomically; an older one at ``path`` is replaced.

    Args:
        tuning: What was measured to choose the settings.
        is_batched: It is for our gateway, which makes the batches; else TorchServe does.

    Raises:
        UsageError: there is no such format; or the name, the version or the size isn't possible.
        NotArchivedError: the format was refused or skipped, or its answers depend on their batch.
    """
    _check_format(model.opened, model.settings.format)
    check_device(model.settings.format, model.settings.device)
    check_name(model.name, model.version)
    contents: dict[str, Content] = {**_deployed(model), **served_code(model.settings.format)}
    contents[MAR_MANIFEST] = _mar_manifest(model)
    contents[MODEL_CONFIG] = model.settings.to_yaml(is_batched)
    if tuning is not None:
        contents[TUNING] = _json(tuning)
    total = sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in contents.values())
    if total > MAX_BYTES * 0.99:  # the zip's tables are small beside it
        raise UsageError(f"{path} would have {total:,} bytes, {MAX_BYTES:,} is the most: choose a smaller format")
    with atomic_write(path) as file:
        _write(file, contents)
    return path


def choose_format(opened: Opened, format: FormatName, device: Device) -> FormatName:
    """The format of this name; of ``auto`` the one that its export recommends, or ``eager`` without an export.

    On a GPU that is the fastest of those that passed and were made for one. Which is the fastest isn't measured again,
    as ``predict`` does: the archive may be served by another machine.
    """
    if format != "auto":
        return format
    export = opened.export
    if export is None:
        return "eager"
    if device == "cpu":
        return export.facts.recommended
    rows = [row for row in export.facts.formats if row.status == "passed" and find_format(row.name).device == "gpu"]
    return max(rows, key=lambda row: row.throughput or 0.0).name if rows else "eager"


def _check_format(opened: Opened, format: FormatName) -> None:
    bundle, export = opened
    if format == "eager":
        project, kind = find_project(), bundle.facts.model.get("kind")
        if project is None or kind not in project.models:
            raise UsageError(
                f"eager needs the code of model kind {kind!r}, which no project has that is installed here: "
                "install its project, or choose an exported format"
            )
        return
    row = export.facts.row(format) if export else None
    if row is None:
        raise UsageError(f"there is no {format} of {bundle.path}: make it with trainyard export {bundle.path}")
    if row.status in ("refused", "skipped", "batch_dependent"):
        raise NotArchivedError(
            f"{format} isn't archived, as it was {row.status} when it was exported ({row.reason}): "
            "choose another format"
        )


def check_name(name: str, version: str) -> None:
    """Checks a model's name and version, which become parts of URLs and of paths.

    Raises:
        UsageError: one isn't possible.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' can't name a model: use up to 64 of a-z, A-Z, 0-9, _ and -")
    if not _VERSION.fullmatch(version):
        raise UsageError(f"'{version}' can't be a version: use up to 32 of a-z, A-Z, 0-9, and . _ - between them")


def default_name(opened: Opened) -> str:
    """The bundle's name, with what a URL can't have replaced."""
    return re.sub("[^A-Za-z0-9_-]+", "-", opened.bundle.facts.name).strip("-_")[:64] or "model"


def _deployed(model: Model) -> dict[str, Content]:
    format, answers = model.settings.format, model.answers
    parts = [(model.opened.bundle.path, f"{DEPLOYED}/{BUNDLE}", left_out_of_bundle(format))]
    if isinstance(answers, Export):
        left_out = left_out_of_export(answers.facts, format)
        parts.append((answers.path, f"{DEPLOYED}/{EXPORTS}/{answers.facts.id}", left_out))
    return {
        f"{place}/{name}": folder / name
        for folder, place, left_out in parts
        for name in (MANIFEST, *sealed_names(folder))
        if name not in left_out
    }


def _mar_manifest(model: Model) -> bytes:
    """TorchServe's manifest, in its spelling."""
    own = {"modelName": model.name, "modelVersion": model.version, "handler": HANDLER, "configFile": MODEL_CONFIG}
    return _json(
        {
            "createdOn": model.answers.facts.created,  # not now: an archive made again is the same
            "runtime": "python",
            "model": own,
            "archiverVersion": trainyard.__version__,
        }
    )


def _json(value: Json) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def _write(file: IO[bytes], contents: Mapping[str, Content]) -> None:
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for name in sorted(contents):
            info = ZipInfo(name, _UNDATED)
            info.create_system, info.external_attr = 3, _MODE << 16
            content = contents[name]
            source = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
            with source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target)


def unpack(path: Path, folder: Path, expect: Collection[str] = ()) -> Model:
    """Unpacks an archive, without its code, and compares what is deployed with its manifests.

    Args:
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
        settings = _read(folder / MODEL_CONFIG, Settings.from_yaml)
        name, version = _read(folder / MAR_MANIFEST, _name_and_version)
        opened = open_deployed(folder / DEPLOYED, settings.format, () if vouched else expect)
    except BundleError as error:
        said = str(error).replace(f"{folder}/", f"{path}: ")
        raise BundleError(said if str(path) in said else f"{path}: {said}") from error
    copy.unlink()
    return Model(name, version, settings, opened)


def _extract(archive: Path, folder: Path) -> None:
    """Unpacks what is deployed and the two files that say how; nothing else is looked at."""
    try:
        with ZipFile(archive) as zipped:
            members = zipped.infolist()
            if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
                raise BundleError(f"it has more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes: use a smaller format")
            for member in members:
                _check_member(member)
                if member.filename in (MAR_MANIFEST, MODEL_CONFIG) or member.filename.startswith(f"{DEPLOYED}/"):
                    place = folder / member.filename
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with zipped.open(member) as source, place.open("xb") as target:
                        shutil.copyfileobj(source, target)
    except (BadZipFile, FileExistsError, NotADirectoryError, NotImplementedError, RuntimeError, EOFError, ValueError,
            struct.error) as error:  # fmt: skip
        raise BundleError(f"it can't be unpacked ({error}): archive the model again") from error


def _check_member(member: ZipInfo) -> None:
    """Refuses a member that ``make_archive`` wouldn't write: a bomb, a link, a name that leads outside."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if not _MEMBER.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise BundleError(f"the name {name[:255]!r} isn't a plain one: archive the model again")
    if member.compress_type != ZIP_STORED or member.compress_size != member.file_size:
        raise BundleError(f"{name} is compressed: archive the model again")
    if kind not in (0, stat.S_IFREG):
        raise BundleError(f"{name} is a link, or no regular file: archive the model again")


def _read(path: Path, parse: Callable[[bytes], T]) -> T:
    """What one of the two files says that tell how a model is served."""
    if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
        raise BundleError(
            f"it has no {path.name}, or one of more than {MAX_TEXT_BYTES:,} bytes: archive the model again"
        )
    try:
        return parse(path.read_bytes())
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError, UsageError) as error:
        first_line = str(error).partition("\n")[0]
        raise BundleError(f"{path.name} can't be read ({first_line}): archive the model again") from error


def _name_and_version(content: bytes) -> tuple[str, str]:
    model = json.loads(content)["model"]
    name, version = model["modelName"], model["modelVersion"]
    check_name(name, version)  # raises TypeError where one isn't text
    return name, version
