"""The base of all sections of a config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a config: unknown keys are errors, and the docstring below a key is its description.

    Where a key wants text, a number is taken as its text: a folder may be called ``2024``.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, coerce_numbers_to_str=True
    )


def number_as_text(value: object) -> object:
    """The text of a number, for keys of which pydantic doesn't know that they want text; all else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
