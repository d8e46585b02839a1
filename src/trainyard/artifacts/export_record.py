"""An export: a bundle's formats, what was measured of each, sealed in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from trainyard.artifacts.bundle import Bundle, Json, find_bundle
from trainyard.artifacts.manifest import check_content, check_digest, digest, read_manifest, verify
from trainyard.base.errors import BundleError, UsageError

EXPORTS = "exports"
LATEST = "latest"
FACTS = "export.json"
SCHEMA_VERSION = 1
MAX_FACTS_BYTES = 10_000_000
"""Largest ``export.json`` that is read before the rest of an export is compared with its manifest."""

FormatName: TypeAlias = str
"""What a format is called, as in ``onnx``; where a user asks for one, ``auto`` leaves the choice to the machine."""

Status = Literal["reference", "passed", "no_gain", "batch_dependent", "refused", "skipped"]


class Latency(BaseModel):
    """Milliseconds of a call."""

    p50: float
    p95: float


class BatchInvariance(BaseModel):
    """How far an answer moves with what shares its batch, as the largest difference of a probability."""

    neighbours: float
    padding: float


NAMES = AliasChoices("batch_invariance", "company")
"""What the figure is called now, and what exports of before called it."""


class FormatRow(BaseModel):
    """A format as ``export.json`` tells of it. What wasn't measured, because the format was skipped, is null."""

    model_config = ConfigDict(validate_by_name=True)

    name: str
    file: str | None = None
    """Its file in the export; null if there is none, as of ``eager`` or after a refusal."""
    size_mb: float | None = None
    """Megabytes (10^6 bytes) of the file, of ``eager`` those of the weights."""
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    """Wilson's 95 % interval."""
    macro_f1: float | None = None
    agreement: float | None = None
    """Share of the examples that get the class of ``eager``; of an fp32 format, ties within ``max_abs_diff`` agree."""
    max_abs_diff: float | None = None
    """Largest difference of a logit to that of ``eager``."""
    batch_invariance: BatchInvariance | None = Field(default=None, validation_alias=NAMES)
    latency_ms: Latency | None = None
    """Of a batch, by ``machine.batch_size``."""
    throughput: float | None = None
    """Examples a second."""
    speedup: float | None = None
    """Throughput over that of ``eager``."""
    status: Status
    reason: str = ""
    """Why it didn't pass; empty if it did."""
    made_with: list[str] = []
    """What was tried to make it, in order; the last is what it is."""
    needs: list[str] = []
    """Flags of the processor without which it must not run: it would crash, or answer differently."""


class ExportFacts(BaseModel):
    """The content of ``export.json``."""

    schema_version: int
    bundle: str
    """Digest of the bundle."""
    id: str
    created: str
    formats: list[FormatRow]
    recommended: str
    """The fastest format that passed; ``eager`` if none is faster."""
    gate: Json
    """The bounds, and whether refused formats were allowed."""
    data: Json
    """What the formats were scored on."""
    machine: Json
    """Processor with its flags, threads, batch size and versions that the figures were measured with."""

    def row(self, name: str) -> FormatRow | None:
        """The row of a format, if it is there."""
        return next((row for row in self.formats if row.name == name), None)


@dataclass(frozen=True)
class Export:
    """A verified export.

    Attributes:
        path: Its folder.
        digest: SHA-256 of its manifest, which covers ``export.json`` and so the bundle's digest in it.
        facts: The content of ``export.json``.
    """

    path: Path
    digest: str
    facts: ExportFacts

    @staticmethod
    def read(path: Path, expect: str | None = None, left_out: Collection[str] = ()) -> Export:
        """Compares each file with the manifest. Whose export it is, ``check_bundle`` asks.

        Raises:
            BundleError: a file is changed, missing or additional, the digest isn't ``expect``, or it is of a newer
                version.
        """
        digest = verify(path, expect, left_out)
        facts = _read_facts(path)
        known = {None, *left_out, *(file.name for file in path.iterdir())}
        if lost := [row.file for row in facts.formats if row.file not in known]:
            raise BundleError(f"{path}: {FACTS} names {lost[0]}, which isn't a file of it: export again")
        return Export(path, digest, facts)

    @staticmethod
    def open(path: Path, bundle: Bundle) -> Export:
        """Compares each file with the manifest, and the bundle's digest with the one that was exported.

        Raises:
            BundleError: see ``read``; or it is of another bundle.
        """
        export = Export.read(path)
        export.check_bundle(bundle.digest)
        return export

    def check_bundle(self, digest: str) -> None:
        """Compares a bundle's digest with the one that was exported.

        Raises:
            BundleError: it is of another bundle.
        """
        if self.facts.bundle != digest:
            raise BundleError(
                f"{self.path} was exported from another bundle ({self.facts.bundle[:12]}): export this one again"
            )


class Opened(NamedTuple):
    """A verified bundle and, if there is one that may be used, a verified export of it."""

    bundle: Bundle
    export: Export | None


def open_trusted(
    run: Path | Bundle, format: FormatName = "auto", export: str = LATEST, expect: str | None = None
) -> Opened:
    """Opens what a format needs, and nothing that the expected digest doesn't vouch for.

    The digest of an export vouches for its formats and, as it names the bundle's, for the bundle. That of a bundle
    vouches for the bundle alone, which is all that ``eager`` needs; then no export is returned.

    Args:
        run: A bundle or run folder; or a bundle that is open already.
        format: What is to run.
        export: Id of the export, or ``latest``.
        expect: Digest of the bundle or of the export. Without it, all that is sealed and fits together is trusted.

    Raises:
        UsageError: there is no bundle or no such export, or ``expect`` isn't a digest or is the bundle's where the
            export's is needed.
        BundleError: the digests differ, found before a file is hashed or parsed; see ``Bundle.open``, ``Export.open``.
    """
    if expect is None:
        bundle = run if isinstance(run, Bundle) else Bundle.open(run)
        return Opened(bundle, None if format == "eager" else find_export(bundle, export))
    expect = check_digest(expect)
    path, own = (run.path, run.digest) if isinstance(run, Bundle) else _digest_of(find_bundle(run))
    if own != expect:
        found = _expected_export(path, own, export, expect)
        return Opened(_open_bundle(run, own), None if format == "eager" else found)
    if format not in ("auto", "eager"):
        raise UsageError(
            f"{expect} is the bundle's digest, which vouches for eager alone: "
            f"give the digest of the export for {format}, or choose eager"
        )
    return Opened(_open_bundle(run, own), None)


def exports_folder(bundle: Bundle) -> Path:
    """Where the exports of a bundle lie: beside it."""
    return bundle.path.parent / EXPORTS


def find_export(bundle: Bundle, name: str = LATEST) -> Export | None:
    """The export of this id, by default the newest; none if the bundle has no exports.

    Raises:
        UsageError: there is none of this id.
        BundleError: see ``Export.open``.
    """
    if folder := _folder(bundle.path, name):
        return Export.open(folder, bundle)
    if name != LATEST:
        raise UsageError(f"there is no export {name} in {exports_folder(bundle)}: make one with trainyard export")
    return None


def newest_facts(bundle: Path) -> ExportFacts | None:
    """What the newest export of a bundle says of itself, to be shown: its other files, which may be large, aren't read.

    None if there is none, or it is of an earlier bundle.

    Raises:
        BundleError: see ``sealed_facts``.
    """
    folder = _folder(bundle, LATEST)
    facts = sealed_facts(folder) if folder else None
    return facts if facts and facts.bundle == digest(bundle) else None


def _expected_export(bundle: Path, own: str, name: str, expect: str) -> Export:
    """The export that has the expected digest, where the bundle has another."""
    folder = _folder(bundle, name)
    other = digest(folder) if folder else None
    if folder is None or other != expect:
        export_says = f"its export {name} has {other}" if other else f"there is no export {name} of it"
        raise BundleError(
            f"{bundle} has the digest {own}, {export_says}, and {expect} was expected; "
            "use the original, or expect another if you know that it is right"
        )
    export = Export.read(folder, expect)
    export.check_bundle(own)
    return export


def _folder(bundle: Path, name: str) -> Path | None:
    path = bundle.parent / EXPORTS / name
    return path.resolve() if path.is_symlink() or path.exists() else None


def _digest_of(path: Path) -> tuple[Path, str]:
    return path, digest(path)


def _open_bundle(run: Path | Bundle, known: str) -> Bundle:
    """Opens a bundle whose digest was compared already."""
    bundle = run if isinstance(run, Bundle) else Bundle.open(run)
    if bundle.digest != known:
        raise BundleError(f"{bundle.path} changed while it was opened; try again")
    return bundle


def _read_facts(folder: Path) -> ExportFacts:
    try:
        return parse_facts((folder / FACTS).read_text(encoding="utf-8"), folder)
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder}: {FACTS} can't be read ({error}); export again") from error


def sealed_facts(folder: Path) -> ExportFacts:
    """The content of ``export.json``, compared with the manifest: what else belongs to an export follows from it.

    Raises:
        BundleError: it is missing, changed or malformed.
    """
    try:
        with (folder / FACTS).open("rb") as file:
            content = file.read(MAX_FACTS_BYTES)
    except OSError:
        content = None
    return check_facts(folder, read_manifest(folder), content)


def check_facts(folder: Path, manifest: bytes, content: bytes | None) -> ExportFacts:
    """Compares the content of an ``export.json`` with that of its manifest, then reads it.

    Args:
        folder: The export, for errors.
        manifest: The content of its manifest.
        content: What is in the file; ``None`` if there is none.

    Raises:
        BundleError: it is missing, changed or malformed.
    """
    if content is None:
        raise BundleError(f"{folder}: the file {FACTS} is missing; use the original")
    check_content(folder, manifest, FACTS, content)
    return parse_facts(content.decode("utf-8", errors="replace"), folder)


def parse_facts(text: str, folder: Path) -> ExportFacts:
    """Reads the content of an ``export.json``.

    Raises:
        BundleError: it doesn't hold what it should, or is of a newer version.
    """
    try:
        content = json.loads(text)
        version = content["schema_version"]
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{folder} has schema version {version}, this trainyard reads {SCHEMA_VERSION}; update it"
            )
        return ExportFacts.model_validate(content)
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError) as error:
        raise BundleError(f"{folder}: {FACTS} can't be read ({error}); export again") from error
