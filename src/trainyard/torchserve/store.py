"""Which models are served: what the command line names, as archives in the private store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from trainyard.artifacts.bundle import FACTS, Bundle, find_bundle
from trainyard.artifacts.export_record import FormatName, Opened, open_trusted
from trainyard.base.errors import BundleError, UsageError
from trainyard.http.request_types import Accepts
from trainyard.inference.inputs import Reads
from trainyard.inference.selection import pick_format
from trainyard.torchserve.archive import DEFAULT_VERSION, SUFFIX, check_name, default_name, make_archive
from trainyard.torchserve.golden import Golden, load_goldens
from trainyard.torchserve.process import RunDirectory
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.unpacked import unpack

NAMED = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        name: By which it is asked.
        version: Of it.
        settings: How it is served.
        archive: The file's name in the store.
        digest: What its workers should expect: the export's, of ``eager`` the bundle's.
        accepts: What it reads.
        about: Its description in the Open Inference Protocol.
        goldens: Requests by which it is checked.
        bundle: The verified bundle.
    """

    name: str
    version: str
    settings: Settings
    archive: str
    digest: str
    accepts: Accepts
    about: dict[str, object]
    goldens: list[Golden]
    bundle: Bundle


def collect(words: Sequence[str], chosen: Settings, expect: Sequence[str], directory: RunDirectory) -> list[Served]:
    """Brings all that is named into the private store, as archives that are made here, of this installation's code.

    Args:
        words: ``[NAME=]RUN`` each: a run folder, a bundle, an archive, or a folder of these.
        chosen: How they are served, where it isn't left to the archive or to this machine.
        expect: Digests of which each model must have one; without any, whatever is sealed is trusted.
        directory: Where the store is.

    Raises:
        UsageError: there is nothing to serve at a place, two models have the same name, or a choice isn't possible.
        BundleError: something was changed, or isn't what was expected.
        NotArchivedError: the format was refused when it was exported.
    """
    served: list[Served] = []
    for name, path in _places(words):
        take = _archived if path.suffix == SUFFIX else _run
        model = take(name, path, chosen, expect, directory)
        if clash := [other for other in served if other.name == model.name]:
            raise UsageError(f"two models are called {clash[0].name}: name one otherwise, as in OTHER={path}")
        served.append(model)
    return served


def _places(words: Sequence[str]) -> list[tuple[str | None, Path]]:
    """Names that were given, and the places of runs, bundles and archives; those in a folder in the order of names."""
    places: list[tuple[str | None, Path]] = []
    for word in words:
        found = NAMED.fullmatch(word) if not Path(word).exists() else None
        name, path = (found["name"], Path(found["path"])) if found else (None, Path(word))
        inside = [] if path.suffix == SUFFIX or _is_run(path) else _models_in(path)
        if inside and name is not None and len(inside) > 1:
            raise UsageError(f"{path} holds {len(inside)} models, which can't all be called {name}: leave {name}= out")
        places += [(name, place) for place in inside or [path]]
    return places


def _is_run(path: Path) -> bool:
    try:
        find_bundle(path)
    except (UsageError, BundleError):
        return False
    return True


def _models_in(folder: Path) -> list[Path]:
    if not folder.is_dir() or (folder / "config.yaml").is_file() or (folder / FACTS).is_file():
        return []  # what is wrong with it is said when it is opened
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    models = [path for path in visible if (path.suffix == SUFFIX and path.is_file()) or _is_run(path)]
    if not models:
        raise UsageError(f"{folder} is neither a run nor a folder of models: put runs or {SUFFIX} archives there")
    return models


def _run(name: str | None, path: Path, chosen: Settings, expect: Sequence[str], directory: RunDirectory) -> Served:
    opened = _opened(path, chosen.format, expect)
    given = chosen.device if "device" in chosen.model_fields_set else None
    settings = chosen.for_machine(pick_format(opened, chosen.format, given))
    return _stored(opened, settings, name or default_name(opened), DEFAULT_VERSION, directory)


def _archived(name: str | None, path: Path, chosen: Settings, expect: Sequence[str], directory: RunDirectory) -> Served:
    """Makes an archive anew: what is deployed in it is kept, its code isn't."""
    with TemporaryDirectory(dir=directory.path) as folder:
        found = unpack(path, Path(folder), expect)
        if chosen.format not in ("auto", found.settings.format):
            raise UsageError(
                f"{path} holds {found.settings.format}: leave out --format {chosen.format}, or archive the run again"
            )
        settings = found.settings.with_chosen(chosen)
        return _stored(found.opened, settings, name or found.name, found.version, directory)


def _opened(path: Path, format: FormatName, expect: Sequence[str]) -> Opened:
    """Opens a run by the one of the expected digests that is its own."""
    refused: BundleError | None = None
    for digest in expect or (None,):
        try:
            return open_trusted(path, format, expect=digest)
        except BundleError as error:
            refused = error
    assert refused is not None
    raise refused


def _stored(opened: Opened, settings: Settings, name: str, version: str, directory: RunDirectory) -> Served:
    """Makes an archive in the store, and reads what describes the model and checks it."""
    bundle, export = opened if settings.format != "eager" else (opened.bundle, None)
    check_name(name, version)
    archive = make_archive(opened, settings, directory.store / f"{name}{SUFFIX}", name, version, is_batched=True)
    row = export.facts.row(settings.format) if export else None
    goldens = load_goldens(bundle.path, bundle.labels, (row.max_abs_diff if row else None) or 0.0)
    about = _about(name, version, settings.format, Reads.of(bundle), len(bundle.labels))
    digest = export.digest if export else bundle.digest
    return Served(name, version, settings, archive.name, digest, Accepts.of(bundle), about, goldens, bundle)


def _about(name: str, version: str, format: FormatName, reads: Reads, classes: int) -> dict[str, object]:
    image_or_text = {
        "name": reads.kind,
        "datatype": "BYTES",
        "shape": [-1, 2] if reads.pair else [-1],
        # For our own client, which also reads tables.
        "parameters": {"columns": list(reads.columns), "header": reads.dialect.header is True, "label": reads.label},
    }
    return {
        "name": name,
        "versions": [version],
        "platform": f"trainyard_{format}",
        "inputs": [image_or_text],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        ],
    }
