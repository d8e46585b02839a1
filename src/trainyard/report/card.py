"""The model card: what a model is, how to use it, how good it is, and what nobody has measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from trainyard.artifacts.bundle import Certainty, Covered
from trainyard.evaluation.baseline import Baseline
from trainyard.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from trainyard.evaluation.intervals import wilson_interval
from trainyard.heads.scores import ClassScores, Scores
from trainyard.preprocess.base import Kind
from trainyard.report.filling import Filling, last_part, without_folders
from trainyard.report.markdown import markdown

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
        certainty: Which answers are certain; none if no accuracy was wanted of them.
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
    certainty: Certainty | None
    training: Mapping[str, object]
    config: str
    environment: Mapping[str, object]


def model_card(facts: CardFacts) -> str:
    """Gives the card as Markdown, opened by the YAML that the Hugging Face Hub reads.

    It is the project's template that is filled in. Where that fails, the library's plain card stands in for it and the
    reason is logged: no finished run is lost for its card.
    """
    return CARD.fill(_known(facts, {"test": facts.test.summary(), "val": facts.val.summary()}))


def check_template(config: str, modality: Kind, metrics: Iterable[str] = ()) -> None:
    """Fills the project's template with facts that are made up, so that a run ends as well as it starts.

    Args:
        config: The resolved config of the run to come, as YAML.
        metrics: Names of those that the project adds.

    Raises:
        UsageError: it has a mistake; names file and line.
    """
    CARD.check()
    for classes, temperature in ((2, 1.0), (MANY_CLASSES + 1, MAX_TEMPERATURE)):
        facts = made_up_facts(config, modality, [f"class {number}" for number in range(classes)], temperature)
        figures = facts.test.summary() | dict.fromkeys(metrics, 0.5)
        CARD.fill_strictly(_known(facts, {"test": figures, "val": figures}))


def made_up_facts(config: str, modality: Kind, classes: Sequence[str], temperature: float = 1.0) -> CardFacts:
    """Facts of a run that found something to say wherever a card can."""
    per_class = dict.fromkeys(classes, ClassScores(precision=1.0, recall=1.0, f1=1.0, support=2))
    confusion = [[2 * (row == column) for column in range(len(classes))] for row in range(len(classes))]
    scores = Scores(1.0, 1.0, 0.1, 0.1, 2 * len(classes), per_class, confusion)
    baseline = Baseline(
        name="a simple model", accuracy=0.5, macro_f1=0.4, majority=0.25, gain=0.5, gain_interval=(0.2, 0.8),
        train_examples=8 * len(classes), test_examples=2 * len(classes),
    )  # fmt: skip
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
    covered = Covered(coverage=0.5, accuracy=1.0)
    certain = Certainty(target_accuracy=0.98, threshold=0.9, val=covered, test=covered) if len(classes) == 2 else None
    # Not this machine's: to ask for a GPU's name takes memory of it, in each process.
    environment = {"trainyard": "1", "python": "3", "platform": "Linux", "cpu": "a processor", "cores": 1, "threads": 1,
                   "gpu": None, "packages": {"torch": "2"}}  # fmt: skip
    return CardFacts(
        "made up", modality, "a model", len(classes) == 2, classes, data, scores, scores, baseline, temperature,
        certain, training, config, environment,
    )  # fmt: skip


def _known(facts: CardFacts, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """What a template can tell. Where a folder lies on the machine is nobody's business and is left out."""
    return {
        **vars(facts),
        "metrics": metrics,
        "data": {**facts.data, "location": last_part(str(facts.data["location"]))},
        "training": {key: value for key, value in facts.training.items() if key != "config"},
        "config": without_folders(yaml.safe_load(facts.config)),
        "temperature_range": (MIN_TEMPERATURE, MAX_TEMPERATURE),
    }


def _names(names: Sequence[str]) -> str:
    """The first of them, ready for Markdown, and how many more there are."""
    more = f" and {len(names) - MANY_CLASSES} more" if len(names) > MANY_CLASSES else ""
    return ", ".join(map(markdown, names[:MANY_CLASSES])) + more


def _folded(table: str, title: str, classes: Sequence[str]) -> str:
    """Folds a long table away; the Hub and GitHub show its title alone until it is clicked."""
    if len(classes) <= MANY_CLASSES:
        return table
    return f"<details><summary>{title} {len(classes)} classes</summary>\n\n{table}\n</details>\n"


# Markdown is no HTML: what must be escaped says so, by the filter ``markdown``.
CARD = Filling(
    "model_card.md.j2",
    "the model card",
    {
        "markdown": markdown,
        "names": _names,
        "folded": _folded,
        "interval": lambda scores: wilson_interval(scores.correct, scores.examples),
    },
    escapes=False,
)
