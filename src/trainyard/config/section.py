"""The base of all sections of a config, and what each key changes."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Change = Literal["nothing", "checkpoints", "place", "batches", "inputs", "weights"]
CHANGES: dict[Change, str] = {
    "nothing": "Changes nothing that is computed: a run may go on with another value, and a node may have its own.",
    "checkpoints": "Changes nothing but when checkpoints are written: a run may go on with another value.",
    "place": "Changes nothing as long as the same data lies there: a node may have its own value.",
    "batches": "Changes how many examples there are and which come together; each of them stays what it is.",
    "inputs": "Changes what the model sees, and is sealed in the bundle.",
    "weights": "",  # as most keys do, so it needn't be said
}
"""What a key changes, and how editors are told of it. Resume, nodes and evaluation go by it."""


class Section(BaseModel):
    """A part of a config: unknown keys are errors, and the docstring below a key is its description.

    Where a key wants text, a number is taken as its text: a folder may be called ``2024``.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, coerce_numbers_to_str=True
    )


def changes(what: Change) -> Any:
    """What stands at a key that changes something else than the weights, of an ``Annotated``.

    Without it, a key changes the weights: the one assumption that can't hurt.
    """
    assert what in get_args(Change), f"{what} is none of {get_args(Change)}"
    return Field(json_schema_extra={"changes": what})


def keys_that_change(section: type[Section], *what: Change) -> set[str]:
    """A section's keys that change one of these, and nothing else."""
    return {key for key, field in section.model_fields.items() if _change(field.json_schema_extra) in what}


def dotted_keys_that_change(config: Section, *what: Change) -> set[str]:
    """As ``keys_that_change``, of a whole config: its kinds of data and model, and the project's sections, too."""
    sections = [(name, value) for name, value in config if isinstance(value, Section)]
    inner = {f"{name}.{key}" for name, section in sections for key in dotted_keys_that_change(section, *what)}
    return inner | keys_that_change(type(config), *what)


def _change(extra: object) -> object:
    return extra.get("changes", "weights") if isinstance(extra, dict) else "weights"


def number_as_text(value: object) -> object:
    """The text of a number, for keys of which pydantic doesn't know that they want text; all else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
