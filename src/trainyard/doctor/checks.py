"""What a check found, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from trainyard.base.errors import EXIT_FAILED

Status = Literal["ok", "warning", "error"]
COLOURS: dict[Status, str] = {"ok": "green", "warning": "yellow", "error": "red"}


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        status: ``warning`` is what may hurt, or hurts one verb only; with ``error`` training can't work.
        detail: What was found.
        fix: What to do about it; ``None`` when it is well, or when ``detail`` says so itself.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None


def render(checks: Sequence[Check]) -> Table:
    """A table with a row for each check, its fix below what was found."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        # Text, not markup: a path may hold square brackets.
        detail = Text(_printable(check.detail))
        if check.fix is not None:
            detail.append(f"\nFix: {check.fix}", style="bold")
        table.add_row(Text(check.status, style=COLOURS[check.status]), Text(_printable(check.name)), detail)
    return table


def _printable(text: str) -> str:
    """A byte of a file's name that isn't UTF-8 can't be printed everywhere."""
    return text.encode(errors="backslashreplace").decode()


def exit_code(checks: Sequence[Check]) -> int:
    """The exit code of ``trainyard doctor``: 1 when a check found an error, 0 otherwise."""
    return EXIT_FAILED if any(check.status == "error" for check in checks) else 0
