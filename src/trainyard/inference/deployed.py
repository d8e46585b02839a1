"""What is deployed: a bundle and an export of it, less the files that the served format doesn't need."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from trainyard.artifacts.bundle import WEIGHTS, Bundle
from trainyard.artifacts.export_record import EXPORTS, Export, ExportFacts, FormatName, Opened, sealed_facts
from trainyard.artifacts.manifest import check_digest, digest
from trainyard.base.errors import BundleError

BUNDLE = "bundle"


def left_out_of_bundle(format: FormatName) -> frozenset[str]:
    """Files of a bundle that this format doesn't need: the weights, unless it is ``eager``."""
    return frozenset() if format == "eager" else frozenset((WEIGHTS,))


def left_out_of_export(facts: ExportFacts, format: FormatName) -> frozenset[str]:
    """Files of an export that this format doesn't need: those of the others, but for one that it shares."""
    own = facts.row(format)
    return frozenset(row.file for row in facts.formats if row.file) - {own.file if own else None}


def open_deployed(folder: Path, format: FormatName, expect: Collection[str] = ()) -> Opened:
    """Opens a folder with ``bundle/`` and, unless the format is ``eager``, ``exports/ID/``.

    Every file that is there is compared with its manifest before it is parsed. Nothing may lie beside the two, and
    nothing be missing but what ``left_out_of_bundle`` and ``left_out_of_export`` name.

    Args:
        folder: The folder.
        format: What answers.
        expect: Digests of which one must be that of the export or, of ``eager``, of the bundle, as in ``open_trusted``.
            Without any, all that is sealed and fits together is trusted.

    Raises:
        UsageError: one of ``expect`` isn't a digest.
        BundleError: it has another digest, found before a file is hashed or parsed; or a file is changed, missing or
            additional, or the format has no file.
    """
    trusted = {check_digest(one) for one in expect}
    _check_layout(folder, {BUNDLE} if format == "eager" else {BUNDLE, EXPORTS})
    if format == "eager":
        return Opened(Bundle.read(folder / BUNDLE, _among(folder / BUNDLE, trusted)), None)
    place = _only_export(folder / EXPORTS)
    export = Export.read(place, _among(place, trusted), left_out_of_export(sealed_facts(place), format))
    if export.facts.id != place.name:
        raise BundleError(f"{place} holds the export {export.facts.id}: use the original")
    _check_format(export, format)
    own = digest(folder / BUNDLE)
    export.check_bundle(own)
    return Opened(Bundle.read(folder / BUNDLE, own, left_out_of_bundle(format)), export)


def _check_layout(folder: Path, names: set[str]) -> None:
    present = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    for name in sorted(names ^ set(present)):
        if name in names:
            raise BundleError(f"{folder} has no folder {name}: it isn't what was deployed; use the original")
        raise BundleError(f"{folder}: {name} doesn't belong there; remove it or use the original")
    for path in present.values():
        _check_folder(path)


def _only_export(folder: Path) -> Path:
    places = sorted(folder.iterdir())
    if len(places) != 1:
        raise BundleError(f"{folder} has {len(places)} exports where one is deployed; use the original")
    _check_folder(places[0])
    return places[0]


def _check_folder(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        raise BundleError(f"{path} isn't a folder; use the original")


def _among(folder: Path, trusted: set[str]) -> str | None:
    """The digest of a folder if it is one that is trusted; none if whatever is sealed is trusted."""
    if not trusted:
        return None
    found = digest(folder)
    if found not in trusted:
        raise BundleError(
            f"{folder} has the digest {found}, which isn't among those expected ({', '.join(sorted(trusted))}); "
            "use the original, or expect this one if you know that it is right"
        )
    return found


def _check_format(export: Export, format: FormatName) -> None:
    row = export.facts.row(format)
    if row is None or row.file is None or not (export.path / row.file).is_file():
        raise BundleError(f"{export.path} has no file of {format}: it was archived for another format")
