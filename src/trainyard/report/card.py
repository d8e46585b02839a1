"""The model card: what a model is, how to use it, how good it is, and what nobody has measured."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter

from trainyard.data.records import SPLITS
from trainyard.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE
from trainyard.evaluation.intervals import wilson_interval
from trainyard.evaluation.scores import Scores

FIGURE = "confusion_matrix.png"
"""File name of the figure that the card links to; it lies beside the card."""
FEW_EXAMPLES = 20
"""Below this many test examples of a class, its scores are called rough."""
MANY_CLASSES = 25
"""Above this many, tables with a row for each class are folded."""

Modality = Literal["image", "text"]


@dataclass(frozen=True)
class _Bad:
    count: int
    share: float


@dataclass(frozen=True)
class _Duplicates:
    across_splits: int


@dataclass(frozen=True)
class _DataReport:
    """What the card tells of ``data_report.json``."""

    location: str
    fingerprint: str
    classes: dict[str, dict[str, int]]
    bad: _Bad
    duplicates: _Duplicates
    warnings: list[str]


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
        temperature: The fitted one, which lies in the output layer's weights.
        training: Epochs, seconds, world size, seed and so on.
        config: The resolved config, as YAML.
        environment: Versions and hardware.
    """

    name: str
    modality: Modality
    model: str
    hugging_face: bool
    classes: Sequence[str]
    data: Mapping[str, object]
    test: Scores
    val: Scores
    temperature: float
    training: Mapping[str, object]
    config: str
    environment: Mapping[str, object]


def model_card(facts: CardFacts) -> str:
    """Gives the card as Markdown, opened by the YAML that the Hugging Face Hub reads."""
    sections = (_front_matter, _summary, _usage, _data, _training, _metrics, _calibration, _limits)
    return "\n\n".join("\n".join(section(facts)) for section in sections) + "\n"


def _front_matter(facts: CardFacts) -> Iterator[str]:
    task = f"{facts.modality}-classification"
    library = {"library_name": "transformers"} if facts.hugging_face else {}
    header = {**library, "pipeline_tag": task, "tags": ["trainyard", "pytorch", task], "metrics": ["accuracy", "f1"]}
    yield from ("---", yaml.safe_dump(header, sort_keys=False).rstrip(), "---")


def _summary(facts: CardFacts) -> Iterator[str]:
    names = ", ".join(_escape(name) for name in facts.classes[:MANY_CLASSES])
    more = f" and {len(facts.classes) - MANY_CLASSES} more" if len(facts.classes) > MANY_CLASSES else ""
    yield f"# {facts.name}"
    yield ""
    yield f"A classifier of {facts.modality}s ({_escape(facts.model)}), {len(facts.classes)} classes: {names}{more}."
    yield f"Its accuracy on {facts.test.examples:,} test examples is {facts.test.accuracy:.4f}."


def _usage(facts: CardFacts) -> Iterator[str]:
    argument, item, for_pipeline = _example(facts)
    yield from ("## How to use", "", "With this folder at `FOLDER`, from the command line:", "")
    yield from _fenced("bash", f"trainyard predict FOLDER {argument}")
    yield from ("", "From Python (an item that can't be read gets its `ItemError` in place of an answer):", "")
    yield from _fenced(
        "python",
        "from pathlib import Path",
        "",
        "from trainyard.inference.predictor import Predictor",
        "",
        f'for answer in Predictor(Path("FOLDER")).predict([{item}]):',
        "    print(answer)",
    )
    if facts.hugging_face:
        yield from ("", "Without Trainyard, through `transformers`:", "")
        yield from _fenced(
            "python",
            "from transformers import pipeline",
            "",
            'classify = pipeline("text-classification", "FOLDER", truncation=True)',
            f"print(classify({for_pipeline}))",
        )


def _example(facts: CardFacts) -> tuple[str, str, str]:
    """An item on the command line, for the predictor, and for the pipeline of `transformers`."""
    if facts.modality == "image":
        return "photo.jpg", 'Path("photo.jpg")', '"photo.jpg"'
    if yaml.safe_load(facts.config)["data"].get("pair"):
        # A command line has no pairs: each is a row of a table.
        return "pairs.csv", '("a text", "another")', '{"text": "a text", "text_pair": "another"}'
    return '"a text"', '"a text"', '"a text"'


def _data(facts: CardFacts) -> Iterator[str]:
    data = _report(facts)
    yield from ("## Data", "")
    yield from _table(
        ("fact", "value"),
        [
            ("location", _escape(_last_part(data.location))),
            ("fingerprint", f"`{data.fingerprint}`"),
            ("bad examples, skipped", f"{data.bad.count:,} ({data.bad.share:.2%})"),
            ("exact copies of an example in another split", f"{data.duplicates.across_splits:,}"),
        ],
    )
    yield ""
    counts = [[data.classes[name].get(split, 0) for split in SPLITS] for name in facts.classes]
    rows = [(_escape(name), *_counts(row)) for name, row in zip(facts.classes, counts, strict=True)]
    total = ("**all**", *_counts(sum(column) for column in zip(*counts, strict=True)))
    yield from _folded(f"Examples of {len(rows)} classes", _table(("class", *SPLITS), [*rows, total]), len(rows))


def _report(facts: CardFacts) -> _DataReport:
    return TypeAdapter(_DataReport).validate_python(facts.data)


def _training(facts: CardFacts) -> Iterator[str]:
    yield from ("## Training", "")
    # The config follows below, without the folders that it names.
    known = {key: value for key, value in {**facts.training, **facts.environment}.items() if key != "config"}
    rows = [(_escape(key.replace("_", " ")), _escape(_in_words(value))) for key, value in known.items()]
    yield from _table(("fact", "value"), rows)
    config = yaml.safe_dump(_without_folders(yaml.safe_load(facts.config)), sort_keys=False, allow_unicode=True)
    yield from ("", "The config, with absolute paths cut to their last part:", "")
    yield from _fenced("yaml", config.rstrip())


def _metrics(facts: CardFacts) -> Iterator[str]:
    yield from ("## Metrics", "", "The test split was read once, after training had ended.", "")
    header = ("split", "examples", "accuracy", "95 % interval", "macro-F1", "loss", "ECE", *facts.test.metrics)
    yield from _table(header, [_score_row("test", facts.test), _score_row("val", facts.val)])
    yield from (
        "",
        "Interval: Wilson (1927). Loss: mean cross entropy in nats. ECE: expected calibration error over 15 bins",
        "(Guo et al. 2017). Of each class, on the test split:",
        "",
    )
    rows = [
        (_escape(name), f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", f"{one.support:,}")
        for name, one in facts.test.per_class.items()
    ]
    table = _table(("class", "precision", "recall", "F1", "examples"), rows)
    yield from _folded(f"Scores of {len(rows)} classes", table, len(rows))
    yield from ("", f"![Confusion matrix of the test split]({FIGURE})")


def _score_row(split: str, scores: Scores) -> tuple[str, ...]:
    low, high = wilson_interval(scores.correct, scores.examples)
    values = (f"{value:.4f}" for value in (scores.macro_f1, scores.loss, scores.ece, *scores.metrics.values()))
    return (split, f"{scores.examples:,}", f"{scores.accuracy:.4f}", f"{low:.4f} to {high:.4f}", *values)


def _calibration(facts: CardFacts) -> Iterator[str]:
    yield from ("## Calibration", "")
    yield f"A temperature of {facts.temperature:.4g} was fitted on the validation split (Guo et al. 2017), and the"
    yield "weights of the output layer are divided by it: a softmax over the logits gives calibrated probabilities."
    yield f"The calibration error is {facts.test.ece:.4f} on the test split;"
    yield f"the {facts.val.ece:.4f} on the validation split flatters, as the temperature was fitted there."
    if facts.temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE):
        yield f"The best temperature lies beyond the allowed range of {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}: the"
        yield "validation split is too small, or the model makes next to no errors, or next to nothing else, on it."


def _limits(facts: CardFacts) -> Iterator[str]:
    yield from ("## Limits", "")
    yield from (f"- {sentence}" for sentence in _limits_of_this(facts))
    yield "- All figures are for data like the test split; data of another source, time or language was not tried."
    yield "- An input that belongs to no class gets one too; how sure the model then is was not measured."
    yield "- Fairness between groups of people and resistance to deliberately misleading inputs were not measured."


def _limits_of_this(facts: CardFacts) -> Iterator[str]:
    low, high = wilson_interval(facts.test.correct, facts.test.examples)
    if high - low > 0.02:
        yield (
            f"The test split is small ({facts.test.examples:,} examples): "
            f"the true accuracy may lie anywhere between {low:.3f} and {high:.3f}."
        )
    few = [_escape(name) for name, one in facts.test.per_class.items() if one.support < FEW_EXAMPLES]
    if few:
        more = f" and {len(few) - MANY_CLASSES} more" if len(few) > MANY_CLASSES else ""
        yield (
            f"Classes with fewer than {FEW_EXAMPLES} test examples, whose own scores are rough: "
            f"{', '.join(few[:MANY_CLASSES])}{more}."
        )
    yield from (f"Found in the data: {_escape(warning.rstrip('.'))}." for warning in _report(facts).warnings)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join(['---'] * len(header))}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _folded(title: str, lines: Iterable[str], length: int) -> Iterator[str]:
    """Folds a long table away; the Hub and GitHub show its title alone until it is clicked."""
    if length <= MANY_CLASSES:
        yield from lines
        return
    yield from (f"<details><summary>{title}</summary>", "", *lines, "", "</details>")


def _fenced(language: str, *lines: str) -> Iterator[str]:
    yield from (f"```{language}", *lines, "```")


def _escape(text: str) -> str:
    """Markdown that shows ``text`` as it is, on one line."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {child}" for key, child in value.items())
    if isinstance(value, float):
        return f"{value:.1f}"
    return "none" if value is None else str(value)


def _counts(counts: Iterable[int]) -> Iterator[str]:
    return (f"{count:,}" for count in counts)


def _without_folders(value: object) -> object:
    """Cuts absolute paths to their last part: where a folder lies on the machine is nobody's business."""
    if isinstance(value, dict):
        return {key: _without_folders(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_folders(child) for child in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(location: str) -> str:
    """``hub:`` and ``embedded:`` names, and relative paths, stay whole."""
    prefix, path = ("hub:", location[4:]) if location.startswith("hub:") else ("", location)
    return prefix + Path(path).name if path.startswith(("/", "~")) else location
