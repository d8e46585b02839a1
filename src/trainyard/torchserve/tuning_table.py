"""What ``archive --tune`` measured, as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainyard.torchserve.tune import Measured, describe

COLUMNS = ("workers", "threads", "batch", "delay ms", "requests/s", "p50 ms", "p99 ms")


def print_tuning(best: Measured, measured: Sequence[Measured], p99_ms: float) -> None:
    """Prints all that was measured, with the chosen settings marked, and why some couldn't be."""
    title = f"Highest throughput with a p99 of at most {p99_ms:g} ms"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in measured:
        table.add_row(*_cells(one), _remark(one, best, p99_ms), style="bold" if one == best else None)
    console = Console()
    console.print(table)
    for one in measured:
        if one.failure:
            console.print(f"{describe(one.settings)}: {escape(one.failure)}", soft_wrap=True)


def _cells(one: Measured) -> list[str]:
    settings = one.settings
    counts = [settings.workers, settings.threads, settings.batch_size, settings.max_batch_delay_ms]
    figures = [f"{one.requests_per_second:.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}"]
    return [*map(str, counts), *(["-"] * len(figures) if one.failure else figures)]


def _remark(one: Measured, best: Measured, p99_ms: float) -> str:
    if one == best:
        return "chosen"
    if one.failure:
        return "failed"
    return "too slow" if one.p99_ms > p99_ms else ""
