"""An export: a bundle's rungs, what was measured of each, sealed in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from trainyard.core.bundle import Bundle, Json
from trainyard.core.manifest import MANIFEST, verify
from trainyard.core.rungs import Rung, Status
from trainyard.errors import BundleError, UsageError

EXPORTS = "exports"
LATEST = "latest"
FACTS = "export.json"
SCHEMA_VERSION = 1


class Latency(BaseModel):
    """Milliseconds of a call."""

    p50: float
    p95: float


class Company(BaseModel):
    """How far an answer moves with what shares its batch, as the largest difference of a probability."""

    neighbours: float
    padding: float


class FormatRow(BaseModel):
    """A rung as ``export.json`` tells of it. What wasn't measured, because the rung was skipped, is null."""

    name: Rung
    file: str | None = None
    """Its file in the export; null if there is none, as of ``eager`` or after a refusal."""
    size_mb: float | None = None
    """Megabytes (10^6 bytes) of the file, of ``eager`` those of the weights."""
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    """Wilson's 95 % interval."""
    macro_f1: float | None = None
    agreement: float | None = None
    """Share of the examples that get the class of ``eager``; of an fp32 rung, ties within ``max_abs_diff`` agree."""
    max_abs_diff: float | None = None
    """Largest difference of a logit to that of ``eager``."""
    company: Company | None = None
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
    recommended: Rung
    """The fastest rung that passed; ``eager`` if none is faster."""
    gate: Json
    """The bounds, and whether refused rungs were allowed."""
    data: Json
    """What the rungs were scored on."""
    machine: Json
    """Processor with its flags, threads, batch size and versions that the figures were measured with."""

    def row(self, rung: Rung) -> FormatRow | None:
        """The row of a rung, if it is there."""
        return next((row for row in self.formats if row.name == rung), None)


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
    def open(path: Path, bundle: Bundle) -> Export:
        """Compares each file with the manifest, and the bundle's digest with the one that was exported.

        Raises:
            BundleError: a file is changed, missing or additional, or it is of another bundle or a newer version.
        """
        digest = verify(path)
        facts = _read_facts(path)
        if facts.bundle != bundle.digest:
            raise BundleError(f"{path} was exported from another bundle ({facts.bundle[:12]}): export this one again")
        return Export(path, digest, facts)


def exports_folder(bundle: Bundle) -> Path:
    """Where the exports of a bundle lie: beside it."""
    return bundle.path.parent / EXPORTS


def find_export(bundle: Bundle, name: str = LATEST) -> Export | None:
    """The export of this id, by default the newest; none if the bundle has no exports.

    Raises:
        UsageError: there is none of this id.
        BundleError: see ``Export.open``.
    """
    path = exports_folder(bundle) / name
    if (path / MANIFEST).is_file():
        return Export.open(path.resolve(), bundle)
    if name != LATEST:
        raise UsageError(f"there is no export {name} in {exports_folder(bundle)}: make one with trainyard export")
    return None


def _read_facts(folder: Path) -> ExportFacts:
    try:
        content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{folder} has schema version {version}, this trainyard reads {SCHEMA_VERSION}; update it"
            )
        return ExportFacts.model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise BundleError(f"{folder}: {FACTS} can't be read ({error}); export again") from error
