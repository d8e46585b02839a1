"""The ladder: each rung made, examined, timed beside the others, and sealed with what was found."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trainyard.artifacts.bundle import Bundle, Json
from trainyard.artifacts.export_record import FACTS, SCHEMA_VERSION, Export, ExportFacts, FormatRow, exports_folder
from trainyard.artifacts.manifest import write_manifest
from trainyard.artifacts.samples import calibration_samples
from trainyard.base.environment import describe_environment
from trainyard.base.errors import UsageError
from trainyard.base.files import write_json, write_text
from trainyard.formats.errors import Skip
from trainyard.formats.names import CPU_RUNGS, FILES, Rung
from trainyard.formats.source import Source
from trainyard.preprocess.preprocessor import Item
from trainyard.report.export import ladder_figure, ladder_markdown
from trainyard.report.figures import save_png
from trainyard.verify.attempts import attempts, needs
from trainyard.verify.examine import Reference, examine, reference
from trainyard.verify.examples import Examples, load_examples
from trainyard.verify.folder import check_folder, new_export
from trainyard.verify.gate import Gate
from trainyard.verify.rank import TIMED_BATCH, Climbed, rank, recommended
from trainyard.verify.source import load_source

log = logging.getLogger(__name__)

MARKDOWN, FIGURE = "ladder.md", "ladder.png"
DEPRECATED = (
    "TorchScript is deprecated since torch 2.11, and torch.ao.quantization with it; these rungs are for servers that "
    "run them already. onnx-int8 and aoti-int8 are what replaces them."
)


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        formats: The rungs to make.
        threads: Of a call; by default one for each core.
        gate: The bounds.
        allow_refused: Keep the files of refused rungs.
    """

    formats: Sequence[Rung] = CPU_RUNGS
    threads: int | None = None
    gate: Gate = field(default_factory=Gate)
    allow_refused: bool = False


def export(bundle: Bundle, options: Options, overrides: Sequence[str]) -> Export:
    """Climbs the ladder and seals what came of it, refused rungs among it.

    Args:
        bundle: The model.
        options: Which rungs, and how.
        overrides: ``data.key=value`` words, where the data isn't where the bundle says.

    Raises:
        UsageError: an override is wrong, or there is nothing to score or calibrate with.
        DataError: the data changed since the training.
        TrainyardError: the export can't be written.
    """
    check_folder(bundle)
    examples = load_examples(bundle, overrides)
    source = load_source(bundle, _calibration_items(bundle))
    threads = options.threads or source.cpu.cores
    log.info("scoring eager on %d examples", len(examples.labels))
    if any(rung.startswith("torchscript") for rung in options.formats):
        log.warning(DEPRECATED)
    against = reference(bundle, examples, source.calibration, options.gate, threads)
    with new_export(bundle) as (name, folder):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            climbed = [_climb(rung, source, against, Path(scratch)) for rung in options.formats]
            log.info("timing %d rungs in turns", len(climbed) + 1)
            rows = rank(climbed, against, source.batch(source.calibration[:TIMED_BATCH]))
            rows = [_keep(row, one, folder, options) for row, one in zip(rows, [None, *climbed], strict=True)]
        _seal(folder, _facts(name, bundle, source, examples, rows, options, threads))
    made = Export.open(exports_folder(bundle) / name, bundle)
    log.info("its digest, for --expect: %s", made.digest)
    return made


def _calibration_items(bundle: Bundle) -> list[Item]:
    items = [sample.item for sample in calibration_samples(bundle.path)]
    if not items:
        raise UsageError(
            f"{bundle.path} carries no calibration records, which an export needs: train with bundle.samples=true"
        )
    return items


def _climb(rung: Rung, source: Source, against: Reference, scratch: Path) -> Climbed:
    """Tries one way after another to make a rung, until one passes the gate."""
    tried: list[str] = []
    climbed = Climbed(rung)
    for number, attempt in enumerate(attempts(rung, source, scratch / FILES["onnx"])):
        log.info("%s: %s", rung, attempt.description or "making it")
        file = scratch / rung / str(number) / FILES[rung]
        file.parent.mkdir(parents=True)
        try:
            attempt.make(file)
        except Skip as skip:
            if number == 0:
                return Climbed(rung, skipped=str(skip))
            tried.append(f"{attempt.description}: can't be made, {skip}")
            continue
        examined = examine(rung, file, against)
        outcome = "passed" if examined.passed else "; ".join(examined.reasons)
        tried.append(f"{attempt.description}: {outcome}" if attempt.description else outcome)
        climbed = Climbed(rung, file, examined, tuple(tried), needs=tuple(needs(rung, source)))
        if examined.passed:
            break
    return climbed


def _keep(row: FormatRow, one: Climbed | None, folder: Path, options: Options) -> FormatRow:
    """Moves a rung's file into the export; a refused one isn't left where a server would find it."""
    if one is None or one.file is None:
        return row
    if row.status == "refused" and not options.allow_refused:
        return row.model_copy(update={"file": None})
    shutil.move(one.file, folder / one.file.name)
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
    write_text(folder / MARKDOWN, ladder_markdown(facts))
    save_png(ladder_figure(facts), folder / FIGURE)
    write_manifest(folder)
