"""Looks an archive over before Java or a worker does: what isn't as ``make_archive`` wrote it is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from trainyard.artifacts.export_record import EXPORTS, FACTS, MAX_FACTS_BYTES, ExportFacts, FormatName, check_facts
from trainyard.artifacts.manifest import MANIFEST, MAX_MANIFEST_BYTES, Entry, check_digests, compare
from trainyard.base.errors import BundleError, UsageError
from trainyard.base.files import sha256_file
from trainyard.inference.deployed import BUNDLE, left_out_of_bundle, left_out_of_export
from trainyard.torchserve.archive import DEPLOYED, MAR_MANIFEST, MODEL_CONFIG, TUNING, MarManifest, check_name
from trainyard.torchserve.modules import HANDLER, PACKAGE, PROJECT, served_code
from trainyard.torchserve.settings import Settings, read_model_config
from trainyard.torchserve.zipped import FIX, Zipped, open_zipped

MAX_CONFIG_BYTES = 64_000
_TOP = {MAR_MANIFEST.partition("/")[0], MANIFEST, HANDLER, MODEL_CONFIG, TUNING, PACKAGE, PROJECT, DEPLOYED}


@dataclass(frozen=True)
class ArchiveFacts:
    """What an archive says of itself.

    Attributes:
        sha256: Of the archive.
        size: Bytes of the archive.
        name: The model's name.
        version: The model's version.
        format: What answers.
        bundle: Digest of the bundle.
        export: Digest of the export; of ``eager`` none.
        settings: How it is served.
    """

    sha256: str
    size: int
    name: str
    version: str
    format: FormatName
    bundle: str
    export: str | None
    settings: Settings

    @property
    def digest(self) -> str:
        """What vouches for the model in it, and what its workers should expect: the export's or the bundle's digest."""
        return self.export or self.bundle


def check_archive(path: Path, expect: str | None = None) -> ArchiveFacts:
    """Checks an archive from the outside in: the zip's form, each file's hash, then the few files that say what it is.

    Whoever unpacks it later must unpack this file, so check the copy that only you can write.

    Args:
        path: The archive.
        expect: A digest that it must have, or several, with commas or spaces between them: the SHA-256 of the archive,
            or the digest of the export in it (of ``eager``, of the bundle). These name the model alone, so that with
            them the code must be that of this installation. Without it, all that is sealed and fits together is
            trusted, the code included.

    Raises:
        UsageError: there is no such file, or ``expect`` isn't a digest.
        BundleError: it is refused; says why.
    """
    expected = check_digests(expect) if expect else frozenset()
    if not path.is_file():
        raise UsageError(f"there is no archive {path}: make one with trainyard archive RUN")
    zipped = open_zipped(path)
    sha256 = sha256_file(path)
    bundle, export = _deployed_folders(zipped)
    bundle_digest = _digest(zipped, bundle)
    export_digest = _digest(zipped, export) if export else None
    if expected and sha256 not in expected:
        _check_trust(zipped, sha256, export_digest or bundle_digest, expected, eager=export is None)
    entries = _check_files(zipped)
    config = read_model_config(zipped.read(MODEL_CONFIG, MAX_CONFIG_BYTES))
    mar = _read_mar_manifest(zipped)
    format = config.handler.format
    if (format == "eager") != (export is None):
        raise BundleError(f"{path} is to run {format}, and holds what another format needs: {FIX}")
    _check_deployed(zipped, entries, bundle, left_out_of_bundle(format))
    if export:
        name = f"{export}/{FACTS}"
        content = zipped.read(name, MAX_FACTS_BYTES) if name in zipped.places else None
        facts = check_facts(path / export, _manifest(zipped, f"{export}/"), content)
        _check_deployed(zipped, entries, export, left_out_of_export(facts, format))
        _check_export(zipped, export, facts, format, bundle_digest)
    return ArchiveFacts(
        sha256, path.stat().st_size, mar.model.modelName, mar.model.modelVersion, format, bundle_digest, export_digest,
        config.settings(),
    )  # fmt: skip


def _deployed_folders(zipped: Zipped) -> tuple[str, str | None]:
    """The folders of the bundle and of the export in an archive, which has nothing but what belongs into one."""
    bundle, exports = f"{DEPLOYED}/{BUNDLE}", f"{DEPLOYED}/{EXPORTS}"
    export: str | None = None
    for name in zipped.places:
        parts = PurePosixPath(name).parts
        above = "/".join(parts[:2])
        if parts[0] not in _TOP or (parts[0] == DEPLOYED and above not in (bundle, exports)):
            raise BundleError(f"{zipped.path}: {name} doesn't belong into an archive: {FIX}")
        if above == exports:
            if export not in (None, "/".join(parts[:3])):
                raise BundleError(f"{zipped.path} has more than one export: {FIX}")
            export = "/".join(parts[:3])
    return bundle, export


def _manifest(zipped: Zipped, folder: str) -> bytes:
    return zipped.read(f"{folder}{MANIFEST}", MAX_MANIFEST_BYTES)


def _digest(zipped: Zipped, folder: str) -> str:
    return hashlib.sha256(_manifest(zipped, f"{folder}/")).hexdigest()


def _check_trust(zipped: Zipped, sha256: str, digest: str, expected: frozenset[str], eager: bool) -> None:
    """Checks an archive whose own hash isn't expected: its model's digest must be, and its code be ours."""
    if digest not in expected:
        raise BundleError(
            f"{zipped.path} has the SHA-256 {sha256}, the {'bundle' if eager else 'export'} in it the digest {digest}, "
            "and neither is expected; use the original, or expect one of them if you know that it is right"
        )
    format = read_model_config(zipped.read(MODEL_CONFIG, MAX_CONFIG_BYTES)).handler.format
    own = {name: sha256_file(path) for name, path in served_code(format).items()}
    theirs = {name for name in zipped.places if name.partition("/")[0] in (HANDLER, PACKAGE, PROJECT)}
    for name in sorted(own.keys() | theirs):
        if name not in theirs or own.get(name) != zipped.sha256(name):
            raise BundleError(
                f"{zipped.path}: the code in {name} isn't that of this installation, and {digest} vouches for the "
                f"model alone; {FIX}, or expect {sha256}, the archive's own SHA-256, if you know that it is right"
            )


def _check_files(zipped: Zipped) -> dict[str, Entry]:
    """Hashes all files and compares them with the archive's manifest."""
    entries = {
        name: Entry(zipped.sha256(name), place.size) for name, place in zipped.places.items() if name != MANIFEST
    }
    compare(zipped.path, _manifest(zipped, ""), entries)
    return entries


def _read_mar_manifest(zipped: Zipped) -> MarManifest:
    content = zipped.read(MAR_MANIFEST, MAX_CONFIG_BYTES)
    try:
        mar = MarManifest.model_validate(json.loads(content))
        check_name(mar.model.modelName, mar.model.modelVersion)
    except (ValueError, ValidationError, RecursionError, UsageError) as error:
        first_line = str(error).partition("\n")[0]
        raise BundleError(f"{zipped.path}: {MAR_MANIFEST} can't be read ({first_line}): {FIX}") from error
    model = mar.model
    if mar.to_json() != content or (mar.runtime, model.handler, model.configFile) != ("python", HANDLER, MODEL_CONFIG):
        raise BundleError(f"{zipped.path}: {MAR_MANIFEST} isn't as it was written: {FIX}")
    return mar


def _check_deployed(zipped: Zipped, entries: dict[str, Entry], folder: str, left_out: frozenset[str]) -> None:
    """Compares a sealed folder within the archive with its own manifest."""
    start = f"{folder}/"
    present = {name.removeprefix(start): entry for name, entry in entries.items() if name.startswith(start)}
    del present[MANIFEST]
    compare(zipped.path / folder, _manifest(zipped, start), present, left_out)


def _check_export(zipped: Zipped, folder: str, facts: ExportFacts, format: FormatName, bundle: str) -> None:
    """Checks that an export is the bundle's, and has the file of the format."""
    row = facts.row(format)
    if facts.bundle != bundle or facts.id != PurePosixPath(folder).name:
        raise BundleError(f"{zipped.path}: its export is of another bundle, or has another id: {FIX}")
    if row is None or row.file is None or f"{folder}/{row.file}" not in zipped.places:
        raise BundleError(f"{zipped.path} has no file of {format}: {FIX}")
