"""Which models are served: what the command line names, as archives in the private store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trainyard.artifacts.bundle import FACTS, find_bundle
from trainyard.artifacts.export_record import open_trusted
from trainyard.artifacts.samples import golden_samples
from trainyard.base.errors import BundleError, UsageError
from trainyard.inference.inputs import Reads
from trainyard.inference.selection import pick_format
from trainyard.torchserve.archive import DEFAULT_VERSION, SUFFIX, Model, default_name, make_archive, unpack
from trainyard.torchserve.golden import Golden
from trainyard.torchserve.process import RunDirectory
from trainyard.torchserve.settings import Settings

NAMED = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class Served(Model):
    """A model that is served; of one that came as an archive, the files of what was opened are gone.

    Attributes:
        goldens: Requests by which it is checked.
    """

    goldens: list[Golden]

    @property
    def archive(self) -> str:
        """The file's name in the store."""
        return f"{self.name}{SUFFIX}"

    @property
    def about(self) -> dict[str, object]:
        """Its description in the Open Inference Protocol."""
        reads = Reads.of(self.opened.bundle)
        # For our own client, which also reads tables.
        table = {"columns": list(reads.columns), "header": reads.dialect.header is True, "label": reads.label}
        image_or_text = {
            "name": reads.kind,
            "datatype": "BYTES",
            "shape": [-1, 2] if reads.pair else [-1],
            "parameters": table,
        }
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": f"trainyard_{self.settings.format}",
            "inputs": [image_or_text],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(self.opened.bundle.labels)]},
            ],
        }


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
    served: dict[str, Served] = {}
    for given, path in _places(words):
        with TemporaryDirectory(dir=directory.path) as folder:
            is_archive = path.suffix == SUFFIX
            found = _archived(path, chosen, expect, Path(folder)) if is_archive else _run(path, chosen, expect)
            model = Served(given or found.name, found.version, found.settings, found.opened, _goldens(found))
            if model.name in served:
                raise UsageError(f"two models are called {model.name}: name one otherwise, as in OTHER={path}")
            # Of this installation's code: what an archive brought along is never run.
            make_archive(model, directory.store / model.archive, is_batched=True)
            served[model.name] = model
    return list(served.values())


def _places(words: Sequence[str]) -> list[tuple[str | None, Path]]:
    """Names that were given, and the places of runs, bundles and archives; those in a folder in the order of names."""
    places: list[tuple[str | None, Path]] = []
    for word in words:
        found = NAMED.fullmatch(word) if not Path(word).exists() else None
        name, path = (found["name"], Path(found["path"])) if found else (None, Path(word))
        inside = _models_at(path)
        if name is not None and len(inside) > 1:
            raise UsageError(f"{path} holds {len(inside)} models, which can't all be called {name}: leave {name}= out")
        places += [(name, place) for place in inside]
    return places


def _models_at(path: Path) -> list[Path]:
    """The model at a place, or those in it, in the order of names."""
    if _is_model(path) or not path.is_dir() or (path / "config.yaml").is_file() or (path / FACTS).is_file():
        return [path]  # what is wrong with it is said when it is opened
    models = [inner for inner in sorted(path.iterdir()) if not inner.name.startswith(".") and _is_model(inner)]
    if not models:
        raise UsageError(f"{path} is neither a run nor a folder of models: put runs or {SUFFIX} archives there")
    return models


def _is_model(path: Path) -> bool:
    if path.suffix == SUFFIX:
        return path.is_file()
    try:
        find_bundle(path)
    except (UsageError, BundleError):
        return False
    return True


def _run(path: Path, chosen: Settings, expect: Sequence[str]) -> Model:
    for digest in expect or (None,):
        try:
            opened = open_trusted(path, chosen.format, expect=digest)
            break
        except BundleError as error:
            refused = error
    else:
        raise refused
    device = chosen.device if "device" in chosen.model_fields_set else None
    settings = chosen.for_machine(pick_format(opened, chosen.format, device))
    return Model(default_name(opened), DEFAULT_VERSION, settings, opened)


def _archived(path: Path, chosen: Settings, expect: Sequence[str], folder: Path) -> Model:
    found = unpack(path, folder, expect)
    if chosen.format not in ("auto", found.settings.format):
        raise UsageError(
            f"{path} holds {found.settings.format}: leave out --format {chosen.format}, or archive the run again"
        )
    return replace(found, settings=found.settings.with_chosen(chosen))


def _goldens(model: Model) -> list[Golden]:
    bundle, export = model.opened
    row = export.facts.row(model.settings.format) if export else None  # of eager, the difference is none
    max_abs_diff = (row.max_abs_diff if row else None) or 0.0
    return [
        Golden(sample.item, bundle.labels, sample.probabilities, max_abs_diff) for sample in golden_samples(bundle.path)
    ]
