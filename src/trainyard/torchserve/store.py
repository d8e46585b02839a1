"""Which models are served: what the command line names, as checked archives in the private store."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import ZipFile

from trainyard.artifacts.bundle import FACTS, SAMPLES, Bundle, BundleFacts, find_bundle, read_facts
from trainyard.artifacts.export_record import EXPORTS, FormatName, Opened, open_trusted, parse_facts
from trainyard.artifacts.export_record import FACTS as EXPORT_FACTS
from trainyard.base.errors import BundleError, UsageError
from trainyard.formats.table import find_format
from trainyard.http.request_types import Accepts
from trainyard.inference.deployed import BUNDLE
from trainyard.inference.inputs import Reads
from trainyard.inference.selection import check_device, pick_format
from trainyard.torchserve.archive import DEFAULT_VERSION, DEPLOYED, SUFFIX, check_name, default_name, make_archive
from trainyard.torchserve.archive_check import ArchiveFacts, check_archive
from trainyard.torchserve.golden import Golden, load_goldens
from trainyard.torchserve.process import RunDirectory
from trainyard.torchserve.restamp import restamp
from trainyard.torchserve.settings import Chosen, Device, choose_settings

NAMED = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class Choices:
    """How models are served, where it isn't left to the archive or to this machine.

    Attributes:
        format: The format, or ``auto``.
        device: ``cpu`` or ``cuda``; by default what the archive or the format was made for.
        settings: Workers, threads and batches.
        expect: Digests of which each model must have one; without any, whatever is sealed is trusted.
    """

    format: FormatName = "auto"
    device: Device | None = None
    settings: Chosen = field(default_factory=Chosen)
    expect: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        name: By which it is asked.
        archive: The file's name in the store.
        facts: What the archive says of itself.
        accepts: What it reads.
        about: Its description in the Open Inference Protocol.
        goldens: Requests by which it is checked.
        bundle: What is known of it since its training.
    """

    name: str
    archive: str
    facts: ArchiveFacts
    accepts: Accepts
    about: dict[str, object]
    goldens: list[Golden]
    bundle: BundleFacts


def collect(words: Sequence[str], choices: Choices, directory: RunDirectory) -> list[Served]:
    """Brings all that is named into the private store, as archives that were checked there.

    Args:
        words: ``[NAME=]RUN`` each: a run folder, a bundle, an archive, or a folder of these.

    Raises:
        UsageError: there is nothing to serve at a place, two models have the same name, or a choice isn't possible.
        BundleError: something was changed, or isn't what was expected.
        NotArchivedError: the format was refused when it was exported.
    """
    served: list[Served] = []
    for name, path in _places(words):
        model = (
            _archived(name, path, choices, directory) if path.suffix == SUFFIX else _run(name, path, choices, directory)
        )
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


def _run(name: str | None, path: Path, choices: Choices, directory: RunDirectory) -> Served:
    """Archives a run into the store."""
    opened = _opened(path, choices)
    format = pick_format(opened, choices.format, choices.device)
    name = name or default_name(opened)
    place = _place(directory, name)
    device = choices.device or ("cuda" if find_format(format).device == "gpu" else "cpu")
    settings = choose_settings(choices.settings, device)
    make_archive(opened, format, place, name, DEFAULT_VERSION, settings)
    return _served(name, check_archive(place), place, directory)


def _archived(name: str | None, path: Path, choices: Choices, directory: RunDirectory) -> Served:
    """Copies an archive into the store, where nobody else can change it any more, and checks it there."""
    if not path.is_file():
        raise UsageError(f"there is no archive {path}: make one with trainyard archive RUN")
    copy = directory.path / f"unchecked{SUFFIX}"
    shutil.copyfile(path, copy)
    try:
        facts = check_archive(copy, " ".join(choices.expect) or None)
    except BundleError as error:
        raise BundleError(str(error).replace(str(copy), str(path))) from error
    if choices.format not in ("auto", facts.format):
        raise UsageError(f"{path} holds {facts.format}: leave out --format {choices.format}, or archive the run again")
    place = _place(directory, name or facts.name)
    settings = choices.settings.applied(replace(facts.settings, device=choices.device or facts.settings.device))
    check_device(facts.format, settings.device)
    if (name or facts.name, settings) == (facts.name, facts.settings):
        copy.rename(place)
    else:
        restamp(copy, place, name or facts.name, settings)
        copy.unlink()
    return _served(name or facts.name, replace(facts, settings=settings), place, directory)


def _opened(path: Path, choices: Choices) -> Opened:
    """Opens a run by the one of the expected digests that is its own."""
    refused: BundleError | None = None
    for digest in choices.expect or (None,):
        try:
            return open_trusted(path, choices.format, expect=digest)
        except BundleError as error:
            refused = error
    assert refused is not None
    raise refused


def _place(directory: RunDirectory, name: str) -> Path:
    check_name(name, DEFAULT_VERSION)
    return directory.store / f"{name}{SUFFIX}"


def _served(name: str, facts: ArchiveFacts, archive: Path, directory: RunDirectory) -> Served:
    """Reads what is needed to describe a model and to check it."""
    folder = directory.path / "facts" / name
    with ZipFile(archive) as members:
        for member in members.namelist():
            place = member.removeprefix(f"{DEPLOYED}/")
            wanted = (f"{BUNDLE}/{FACTS}", f"{BUNDLE}/{SAMPLES}/")
            if place.startswith(wanted) or (place.startswith(EXPORTS) and place.endswith(f"/{EXPORT_FACTS}")):
                members.extract(member, folder)
    deployed = folder / DEPLOYED
    bundle = Bundle(deployed / BUNDLE, facts.bundle, read_facts(deployed / BUNDLE))
    accepts = Accepts.of(bundle)
    goldens = load_goldens(bundle.path, bundle.labels, _max_abs_diff(deployed, facts.format))
    about = _about(name, facts, Reads.of(bundle), len(bundle.labels))
    return Served(name, archive.name, facts, accepts, about, goldens, bundle.facts)


def _max_abs_diff(deployed: Path, format: FormatName) -> float:
    """What was measured between a format's logits and the model's own."""
    for path in (deployed / EXPORTS).glob(f"*/{EXPORT_FACTS}"):
        row = parse_facts(path.read_text(encoding="utf-8"), path.parent).row(format)
        return (row.max_abs_diff if row else None) or 0.0
    return 0.0


def _about(name: str, facts: ArchiveFacts, reads: Reads, classes: int) -> dict[str, object]:
    image_or_text = {
        "name": reads.kind,
        "datatype": "BYTES",
        "shape": [-1, 2] if reads.pair else [-1],
        # For our own client, which also reads tables.
        "parameters": {"columns": list(reads.columns), "header": reads.dialect.header is True, "label": reads.label},
    }
    return {
        "name": name,
        "versions": [facts.version],
        "platform": f"trainyard_{facts.format}",
        "inputs": [image_or_text],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        ],
    }
