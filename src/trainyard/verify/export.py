"""An export: each format made, examined, timed beside the others, and sealed with what was found."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import (
    FACTS,
    SCHEMA_VERSION,
    Export,
    ExportFacts,
    FormatName,
    FormatRow,
    exports_folder,
)
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.environment import describe_environment
from trainyard.base.errors import UsageError
from trainyard.base.files import write_json, write_text
from trainyard.base.words import counted
from trainyard.formats.errors import Skip
from trainyard.formats.source import Source
from trainyard.formats.table import exported_formats, find_format
from trainyard.preprocess.base import Item
from trainyard.report.export import export_figure, export_markdown
from trainyard.report.figures import save_png
from trainyard.verify.examine import Reference, examine, reference
from trainyard.verify.examples import Examples, load_examples
from trainyard.verify.folder import check_folder, new_export
from trainyard.verify.gate import Gate
from trainyard.verify.int8_search import rank_layers
from trainyard.verify.rank import TIMED_BATCH, Outcome, rank, recommended
from trainyard.verify.source import load_source

log = logging.getLogger(__name__)

MARKDOWN, FIGURE = "export.md", "export.png"


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        formats: The formats to make; by default all that this machine can.
        threads: Of a call; by default one for each core.
        gate: The bounds.
        allow_refused: Keep the files of refused formats.
    """

    formats: Sequence[FormatName] | None = None
    threads: int | None = None
    gate: Gate = field(default_factory=Gate)
    allow_refused: bool = False


def export(bundle: Bundle, options: Options, overrides: Sequence[str]) -> Export:
    """Makes the formats and seals what came of them, refused ones among them.

    Args:
        bundle: The model.
        options: Which formats, and how.
        overrides: ``data.key=value`` words, where the data isn't where the bundle says.

    Raises:
        UsageError: an override is wrong, or there is nothing to score or calibrate with.
        DataError: the data changed since the training.
        TrainyardError: the export can't be written.
    """
    check_folder(bundle)
    examples = load_examples(bundle, overrides)
    names = options.formats or exported_formats(with_gpu=torch.cuda.is_available())
    for warning in dict.fromkeys(filter(None, (find_format(name).deprecated for name in names))):
        log.warning(warning)
    source = load_source(bundle, _calibration_items(bundle))
    threads = options.threads or source.cpu.cores
    log.info("scoring eager on %s", counted(len(examples.labels), "example"))
    against = reference(bundle, examples, source.calibration, options.gate, threads)
    with new_export(bundle) as (id, folder):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source = replace(source, scratch=Path(scratch))
            outcomes = [_attempt(name, source, against) for name in names]
            log.info("timing %d formats in turns", len(outcomes) + 1)
            rows = rank(outcomes, against, source.batch(source.calibration[:TIMED_BATCH]))
            rows = [_keep(row, one, folder, options) for row, one in zip(rows, [None, *outcomes], strict=True)]
        _seal(folder, _facts(id, bundle, source, examples, rows, options, threads))
    made = Export.open(exports_folder(bundle) / id, bundle)
    log.info("its digest, for --expect: %s", made.digest)
    return made


def _calibration_items(bundle: Bundle) -> list[Item]:
    items = [sample.item for sample in calibration_samples(bundle.path)]
    if not items:
        raise UsageError(
            f"{bundle.path} carries no calibration records, which an export needs: train with bundle.samples=true"
        )
    return items


def _attempt(name: FormatName, source: Source, against: Reference) -> Outcome:
    """Tries one way after another to make a format, until one passes the gate."""
    assert source.scratch is not None
    format = find_format(name)
    tried: list[str] = []
    outcome = Outcome(name)
    for number, attempt in enumerate(format.attempts(source, rank_layers)):
        log.info("%s: %s", name, attempt.description or "making it")
        file = source.scratch / name / str(number) / format.file
        file.parent.mkdir(parents=True)
        try:
            attempt.make(file)
        except Skip as skip:
            if number == 0:
                return Outcome(name, skipped=str(skip))
            tried.append(f"{attempt.description}: can't be made, {skip}")
            continue
        examined = examine(name, file, against)
        result = "passed" if examined.passed else "; ".join(examined.reasons)
        tried.append(f"{attempt.description}: {result}" if attempt.description else result)
        outcome = Outcome(name, file, examined, tuple(tried), needs=tuple(format.needs(source)))
        if examined.passed:
            break
    return outcome


def _keep(row: FormatRow, one: Outcome | None, folder: Path, options: Options) -> FormatRow:
    """Moves a format's file into the export; a refused one isn't left where a server would find it."""
    if one is None or one.file is None:
        return row
    if row.status == "refused" and not options.allow_refused:
        return row.model_copy(update={"file": None})
    kept = folder / one.file.name
    if kept.exists():  # another format's, which shares it
        assert filecmp.cmp(one.file, kept, shallow=False), (
            f"{row.name} makes another {kept.name} than the format before it"
        )
        one.file.unlink()
    else:
        shutil.move(one.file, kept)
    return row


def _facts(
    name: str,
    bundle: Bundle,
    source: Source,
    examples: Examples,
    rows: list[FormatRow],
    options: Options,
    threads: int,
) -> ExportFacts:
    machine: Json = {
        **describe_environment(),
        "flags": list(source.cpu.flags),
        "threads": threads,
        "batch_size": TIMED_BATCH,
        "load": round(os.getloadavg()[0], 1),
    }
    return ExportFacts(
        schema_version=SCHEMA_VERSION,
        bundle=bundle.digest,
        id=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        formats=rows,
        recommended=recommended(rows),
        gate={**options.gate.to_dict(), "allow_refused": options.allow_refused},
        data=examples.origin,
        machine=machine,
    )


def _seal(folder: Path, facts: ExportFacts) -> None:
    write_json(folder / FACTS, facts.model_dump(mode="json"))
    write_text(folder / MARKDOWN, export_markdown(facts))
    save_png(export_figure(facts), folder / FIGURE)
    write_manifest(folder)
