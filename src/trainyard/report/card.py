"""The model card: what a model is, how to use it, how good it is, and what nobody has measured."""

from __future__ import annotations

import importlib.resources
import logging
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from trainyard.base.errors import UsageError
from trainyard.base.project import find_project
from trainyard.evaluation.baseline import Baseline
from trainyard.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from trainyard.evaluation.intervals import wilson_interval
from trainyard.heads.scores import ClassScores, Scores
from trainyard.preprocess.base import Kind
from trainyard.report.markdown import markdown, number

log = logging.getLogger(__name__)

TEMPLATE = "model_card.md.j2"
LIBRARY = Path(str(importlib.resources.files("trainyard.report"))) / "templates"
ABSOLUTE = re.compile(r"(?P<word>[^/~:]+:(?!//))?(?P<path>[/~].*)", re.DOTALL)
"""An absolute path, alone or behind the word of a source of data, as in ``hub:/data/set``."""
MANY_CLASSES = 25
"""Above this many, tables with a row for each class are folded, and lists of names end."""


@dataclass(frozen=True)
class CardFacts:
    """What a model card tells.

    Attributes:
        name: The experiment's.
        model: Family and name, as in ``resnet resnet18``.
        hugging_face: Whether the bundle is also a plain Hugging Face folder.
        classes: Names, in the order of the logits.
        data: The content of ``data_report.json``.
        test: Scores of the calibrated model, like ``val``.
        baseline: What a simple model reached.
        temperature: The fitted one, which lies in the output layer's weights.
        training: Epochs, seconds, world size, seed and so on.
        config: The resolved config, as YAML.
        environment: Versions and hardware.
    """

    name: str
    modality: Kind
    model: str
    hugging_face: bool
    classes: Sequence[str]
    data: Mapping[str, object]
    test: Scores
    val: Scores
    baseline: Baseline
    temperature: float
    training: Mapping[str, object]
    config: str
    environment: Mapping[str, object]


def model_card(facts: CardFacts) -> str:
    """Gives the card as Markdown, opened by the YAML that the Hugging Face Hub reads.

    It is the project's template that is filled in. Where that fails, the library's plain card stands in for it and the
    reason is logged: no finished run is lost for its card.
    """
    known = _known(facts, {"test": facts.test.summary(), "val": facts.val.summary()})
    try:
        return _fill(_environment([*_folder_of_project(), LIBRARY]), known)
    except UsageError as error:
        log.warning("%s; until then the bundle has a plain card", error)
    return _fill(_environment([LIBRARY]), known)


def check_template(config: str, modality: Kind, metrics: Iterable[str] = ()) -> None:
    """Fills the project's template with facts that are made up, so that a run ends as well as it starts.

    Args:
        config: The resolved config of the run to come, as YAML.
        metrics: Names of those that the project adds.

    Raises:
        UsageError: it has a mistake; names file and line.
    """
    folders = [*_folder_of_project(), LIBRARY]
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(
                f"the folder {folder}, which the project names for templates, is not there: make it, or mend that"
            )
    environment = _environment(folders)
    for classes, temperature in ((2, 1.0), (MANY_CLASSES + 1, MAX_TEMPERATURE)):
        facts = made_up_facts(config, modality, [f"class {number}" for number in range(classes)], temperature)
        figures = facts.test.summary() | dict.fromkeys(metrics, 0.5)
        _fill(environment, _known(facts, {"test": figures, "val": figures}))


def made_up_facts(config: str, modality: Kind, classes: Sequence[str], temperature: float = 1.0) -> CardFacts:
    """Facts of a run that found something to say wherever a card can."""
    per_class = dict.fromkeys(classes, ClassScores(precision=1.0, recall=1.0, f1=1.0, support=2))
    confusion = [[2 * (row == column) for column in range(len(classes))] for row in range(len(classes))]
    scores = Scores(1.0, 1.0, 0.1, 0.1, 2 * len(classes), per_class, confusion)
    baseline = Baseline("a simple model", 0.5, 0.4, 0.25, 0.5, (0.2, 0.8), 8 * len(classes), 2 * len(classes))
    counts = {"train": 8, "val": 2, "test": 2}
    data = {
        "location": "made_up",
        "fingerprint": "0" * 64,
        "classes": dict.fromkeys(classes, counts),
        "splits": {split: count * len(classes) for split, count in counts.items()},
        "bad": {"count": 1, "share": 0.01, "items": [{"where": "a file", "reason": "a reason"}]},
        "duplicates": {"across_splits": 1, "examples": [["a file", "another"]]},
        "warnings": ["a warning"],
    }
    training = {"examples_per_second": 1.0, "seconds": 1.0, "epochs": 1, "world_size": 1, "local_processes": 1,
                "steps": 1, "best_epoch": 1, "order": 1, "seed": 1}  # fmt: skip
    # Not this machine's: to ask for a GPU's name takes memory of it, in each process.
    environment = {"trainyard": "1", "python": "3", "platform": "Linux", "cpu": "a processor", "cores": 1, "threads": 1,
                   "gpu": None, "packages": {"torch": "2"}}  # fmt: skip
    return CardFacts(
        "made up", modality, "a model", len(classes) == 2, classes, data, scores, scores, baseline, temperature,
        training, config, environment,
    )  # fmt: skip


def _folder_of_project() -> list[Path]:
    project = find_project()
    if project is None or not project.templates:
        return []
    return [Path(str(importlib.resources.files(project.package))) / project.templates]


def _environment(folders: Sequence[Path]) -> jinja2.Environment:
    """Knows the templates of these folders, the first that has one, and the filters."""
    # Markdown is no HTML: what must be escaped says so, by the filter ``markdown``.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": markdown, "number": number, "words": _in_words, "names": _names, "folded": _folded,
        "interval": lambda scores: wilson_interval(scores.correct, scores.examples),
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip(),
    }  # fmt: skip
    return environment


def _fill(environment: jinja2.Environment, known: Mapping[str, object]) -> str:
    try:
        return environment.get_template(TEMPLATE).render(known)
    except Exception as error:  # what a template calls may raise anything
        reason = " ".join(str(error).split())
        raise UsageError(f"the model card's template has a mistake in {_place(error)}: {reason}; mend it") from error


def _place(error: Exception) -> str:
    """File and line of a template, as Jinja writes them into the traceback."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or error.name}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else TEMPLATE


def _known(facts: CardFacts, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """What a template can tell. Where a folder lies on the machine is nobody's business and is left out."""
    return {
        **vars(facts),
        "metrics": metrics,
        "data": {**facts.data, "location": _last_part(str(facts.data["location"]))},
        "training": {key: value for key, value in facts.training.items() if key != "config"},
        "config": _without_folders(yaml.safe_load(facts.config)),
        "temperature_range": (MIN_TEMPERATURE, MAX_TEMPERATURE),
    }


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {child}" for key, child in value.items())
    if isinstance(value, float):
        return f"{value:.1f}"
    return "none" if value is None else str(value)


def _names(names: Sequence[str]) -> str:
    """The first of them, ready for Markdown, and how many more there are."""
    more = f" and {len(names) - MANY_CLASSES} more" if len(names) > MANY_CLASSES else ""
    return ", ".join(map(markdown, names[:MANY_CLASSES])) + more


def _folded(table: str, title: str, classes: Sequence[str]) -> str:
    """Folds a long table away; the Hub and GitHub show its title alone until it is clicked."""
    if len(classes) <= MANY_CLASSES:
        return table
    return f"<details><summary>{title} {len(classes)} classes</summary>\n\n{table}\n</details>\n"


def _without_folders(value: object) -> object:
    """Cuts absolute paths to their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_folders(child) for child in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(location: str) -> str:
    """Relative paths, names like ``embedded:digits`` and addresses stay whole, and so does the word of a source."""
    found = ABSOLUTE.fullmatch(location)
    return (found["word"] or "") + Path(found["path"]).name if found else location
