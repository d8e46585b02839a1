"""Run folders: ``<out>/<name>/<timestamp>``, a link to the latest, and which one to go on with."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import yaml

from trainyard.artifacts.run import CONFIG, DATA_REPORT, METRICS
from trainyard.base.errors import UsageError
from trainyard.base.files import is_writable, link, write_text
from trainyard.config.experiment import Experiment
from trainyard.config.load import dump_yaml, flatten
from trainyard.config.section import dotted_keys_that_change

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"


def find_run(experiment: Experiment) -> Path | None:
    """The folder of the run to go on with, if ``trainer.resume`` names or finds one.

    Raises:
        UsageError: the run to resume isn't there, is finished, or was started with another config.
    """
    resume = experiment.trainer.resume
    if resume is False:
        return None
    if resume in (True, "auto"):
        return _newest_unfinished(experiment)
    run = Path(str(resume))
    if not (run / CONFIG).is_file():
        raise UsageError(f"trainer.resume: {run} isn't a run folder")
    if is_finished(run):
        raise UsageError(f"trainer.resume: the run {run} is finished; leave trainer.resume out to start a new one")
    if differing := _differing_keys(run, experiment):
        raise UsageError(
            f"trainer.resume: the run {run} was started with other values of {', '.join(differing)}; "
            "go on with the same config, or start a new run"
        )
    return run


def is_finished(run: Path) -> bool:
    """Whether a run ended well: ``metrics.json`` is the last that it writes."""
    return (run / METRICS).is_file()


def has_same_data(run: Path, fingerprint: str, explicit: bool) -> bool:
    """Whether the data is still what a run was started with, as far as it got to write that down.

    Args:
        fingerprint: The data's, now.
        explicit: Whether the user named this run, and so must hear of a difference as of an error.

    Raises:
        UsageError: the data changed since a run that the user named.
    """
    report = run / DATA_REPORT
    if not report.is_file() or json.loads(report.read_text(encoding="utf-8"))["fingerprint"] == fingerprint:
        return True
    if explicit:
        raise UsageError(
            f"trainer.resume: the data changed since the run {run} was started; "
            "put it back, or leave trainer.resume out to start a new run"
        )
    log.warning("%s isn't gone on with: the data changed since it was started", run)
    return False


def check_run_folder(experiment: Experiment) -> None:
    """Looks whether there can be a new run.

    Raises:
        UsageError: the folder can't be written to.
    """
    folder = experiment.out / experiment.name
    if not is_writable(folder):
        raise UsageError(f"the run folder {folder} can't be made or written to; choose another by out=...")


def new_run(experiment: Experiment) -> Path:
    """Makes a folder for a new run, with its config, and points ``latest`` at it.

    Raises:
        UsageError: the folder can't be made.
    """
    parent = experiment.out / experiment.name
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        run = parent / (stamp if attempt == 0 else f"{stamp}-{attempt}")
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"the run folder {run} can't be made: {error.strerror}; choose another by out=..."
            ) from error
        write_text(run / CONFIG, dump_yaml(experiment))
        link(run.parent / "latest", run.name)
        return run
    raise UsageError(f"{parent} has a hundred runs of this second")


def _newest_unfinished(experiment: Experiment) -> Path | None:
    runs = sorted((experiment.out / experiment.name).glob(f"*/{CONFIG}"), reverse=True)
    for run in (path.parent for path in runs if not path.parent.is_symlink()):
        if is_finished(run):
            continue
        if differing := _differing_keys(run, experiment):
            log.warning("%s isn't gone on with: it was started with other values of %s", run, ", ".join(differing))
            continue
        return run
    return None


def _differing_keys(run: Path, experiment: Experiment) -> list[str]:
    before = cast(dict[str, object], yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")))
    now = experiment.model_dump(mode="json")
    old, new = flatten(before), flatten(now)
    may_differ = dotted_keys_that_change(experiment, "nothing", "checkpoints")
    return sorted(key for key in (old.keys() | new.keys()) - may_differ if old.get(key) != new.get(key))
