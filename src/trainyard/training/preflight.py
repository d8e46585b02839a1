"""What can be refused before anything that takes long: ``train`` stops at the first, the doctor shows all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from trainyard.base.project import find_project
from trainyard.config.experiment import Experiment
from trainyard.config.load import dump_yaml
from trainyard.training.observers import check_trackers
from trainyard.training.processes import check_hardware
from trainyard.training.runs import check_run_folder

if TYPE_CHECKING:
    from trainyard.preprocess.base import Kind


def _check_templates(experiment: Experiment) -> None:
    from trainyard.report.card import check_template
    from trainyard.report.html import HTML

    project = find_project()
    modality: Kind = "image" if experiment.data.kind == "images" else "text"
    check_template(dump_yaml(experiment), modality, project.metrics if project else ())
    HTML.check()  # what it says is filled in by the rehearsal, which has something to fill it with


PREFLIGHT: Mapping[str, Callable[[Experiment], None]] = {
    "hardware": lambda experiment: check_hardware(experiment.trainer),
    "trackers": lambda experiment: check_trackers(experiment.trainer.loggers),
    "model": lambda experiment: experiment.model.check(experiment.data),
    "run folder": check_run_folder,
    "templates": _check_templates,
}
"""Each raises ``UsageError`` with the fix."""


def preflight(experiment: Experiment) -> None:
    """Makes all checks.

    Raises:
        UsageError: the config doesn't fit this machine, the data's kind or the model.
    """
    for check in PREFLIGHT.values():
        check(experiment)
