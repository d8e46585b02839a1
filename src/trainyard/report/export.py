"""An export for people: a table in the terminal, a Markdown document, and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainyard.artifacts.bundle import Json
from trainyard.artifacts.export_record import ExportFacts, FormatRow
from trainyard.report.figures import plain_axes
from trainyard.report.markdown import NONE, markdown, markdown_table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox, BboxBase

GOOD = ("reference", "passed")
"""Statuses that need no reason."""
COLOURS = {"reference": "tab:blue", "passed": "tab:green", "no_gain": "tab:orange", "batch_dependent": "tab:purple"}
"""Of points; others are grey and crossed out."""
MARGIN = 14
"""Pixels around a point, or its interval, that stay free of names."""
PLACES = [
    (radius * math.cos(angle), radius * math.sin(angle))
    for radius in (16, 26, 38, 52, 68, 86, 106, 128)
    for angle in (0, math.pi, 0.7, -0.7, 2.44, -2.44, math.pi / 2, -math.pi / 2)
]
"""Where a name may stand, in points (1/72 inch) from its point, the best places first."""


class _Point(NamedTuple):
    """A point of the figure, with its interval."""

    x: float
    y: float
    low: float
    high: float
    name: str
    colour: str


class _Column(NamedTuple):
    """A column of the table; a narrow terminal leaves out those of the highest ``rank`` first, and never rank 0."""

    title: str
    rank: int
    cell: Callable[[FormatRow], str]


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits that count."""
    return number(value, 3 if value is None or value < 1 else 2 if value < 10 else 1 if value < 100 else 0)


def _interval(row: FormatRow) -> str:
    return NONE if row.accuracy_interval is None else "{:.3f} to {:.3f}".format(*row.accuracy_interval)


COLUMNS = (
    _Column("status", 0, lambda row: row.status),
    _Column("MB", 1, lambda row: number(row.size_mb, 1)),
    _Column("accuracy", 0, lambda row: number(row.accuracy)),
    _Column("95 % interval", 3, _interval),
    _Column("macro-F1", 7, lambda row: number(row.macro_f1)),
    _Column("agreement", 2, lambda row: number(row.agreement)),
    _Column("max |Δ|", 5, lambda row: NONE if row.max_abs_diff is None else f"{row.max_abs_diff:.1e}"),
    _Column("p50 ms", 0, lambda row: milliseconds(row.latency_ms.p50 if row.latency_ms else None)),
    _Column("p95 ms", 6, lambda row: milliseconds(row.latency_ms.p95 if row.latency_ms else None)),
    _Column("examples/s", 4, lambda row: number(row.throughput, 0 if (row.throughput or 0) >= 100 else 1)),
    _Column("speed-up", 0, lambda row: number(row.speedup, 2)),
)


def print_export(facts: ExportFacts) -> None:
    """Prints the table, as many of its columns as the terminal is wide, and why formats didn't pass."""
    console = Console()
    names = [f"* {row.name}" if row.name == facts.recommended else f"  {row.name}" for row in facts.formats]
    columns = _fitting(facts, max(map(len, names)), console.width)
    table = Table("  format", *(column.title for column in columns))
    for column in table.columns[2:]:
        column.justify = "right"
    for name, row in zip(names, facts.formats, strict=True):
        style = "bold green" if row.name == facts.recommended else "" if row.status in GOOD else "dim"
        table.add_row(name, *(column.cell(row) for column in columns), style=style)
    console.print(table)
    console.print(f"* recommended. Times are {_times(facts.machine)}.", highlight=False)
    _print_notes(console, "Why not:", _reasons(facts))
    _print_notes(console, "What was tried:", _attempts(facts))


def export_markdown(facts: ExportFacts) -> str:
    """Gives the table as a Markdown document, with all columns and what the figures are of."""
    rows = [
        (f"**{row.name}** (recommended)" if row.name == facts.recommended else row.name, *_cells(row))
        for row in facts.formats
    ]
    lines = [
        f"# Export {markdown(facts.id)}",
        "",
        *markdown_table(("fact", "value"), _header(facts)),
        "",
        *markdown_table(("format", *(markdown(column.title) for column in COLUMNS)), rows),
        "",
        f"Times are {_times(facts.machine)}, all formats in turns. Agreement is the share of the examples that get the",
        "class of `eager`; max |Δ| is the largest difference of a logit to that of `eager`; the interval is Wilson's.",
        *_notes("Why not", _reasons(facts)),
        *_notes("What was tried", _attempts(facts)),
    ]
    return "\n".join(lines) + "\n"


def export_figure(facts: ExportFacts) -> Figure:
    """Draws accuracy against latency; the area of a point grows with the size of its file.

    A refused format isn't timed: it is a grey cross on the right edge, at its accuracy.
    """
    across = f"p50 latency in ms, {_times(facts.machine)}"
    axes = plain_axes(8, 5, across, "accuracy, with its 95 % interval")
    shown = [row for row in facts.formats if row.accuracy is not None]
    latencies = [row.latency_ms.p50 for row in shown if row.latency_ms]
    edge = 1.25 * max(latencies, default=1.0)
    axes.set_xlim(0, edge * 1.05)
    largest = max((row.size_mb or 0.0 for row in shown), default=0.0) or 1.0
    points = [_draw(axes, row, edge, 40 + 360 * (row.size_mb or 0.0) / largest) for row in shown]
    axes.margins(y=0.2)
    absent = ", ".join(f"{row.name} ({row.status})" for row in facts.formats if row not in shown)
    axes.set_title(f"recommended: {facts.recommended}" + (f"\nnot shown: {absent}" if absent else ""), fontsize=10)
    axes.grid(alpha=0.3)
    _label(axes, points)
    return cast("Figure", axes.figure)


def machine_facts(machine: Json) -> Iterator[tuple[str, str]]:
    """What figures were measured on, as names and values: processor, flags, GPU, versions.

    Args:
        machine: What ``describe_environment`` gives, with ``flags``.
    """
    yield "processor", markdown(f"{machine.get('cpu', 'unknown')}, {machine.get('cores', 'unknown')} cores")
    yield "its flags", markdown(" ".join(_strings(machine.get("flags"))) or "none that matter")
    if machine.get("gpu"):
        yield "GPU", markdown(f"{machine['gpu']}, not used")
    packages = machine.get("packages")
    versions = {"Python": machine.get("python", "unknown"), "trainyard": machine.get("trainyard", "unknown")}
    versions |= packages if isinstance(packages, dict) else {}
    yield "versions", markdown(", ".join(f"{name} {version}" for name, version in versions.items()))


def _cells(row: FormatRow) -> list[str]:
    return [markdown(column.cell(row)) for column in COLUMNS]


def _fitting(facts: ExportFacts, name_width: int, width: int) -> list[_Column]:
    """The columns that a table of this width has room for, the important ones first, in the table's order."""

    def wide(column: _Column) -> int:
        return 3 + max(len(column.title), *(len(column.cell(row)) for row in facts.formats))

    room = width - 1 - (name_width + 3)
    chosen = set()
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        room -= wide(column)
        if column.rank and room < 0:
            break
        chosen.add(column.title)
    return [column for column in COLUMNS if column.title in chosen]


def _times(machine: Json) -> str:
    return f"of calls with {machine.get('batch_size', '?')} examples and {machine.get('threads', '?')} threads"


def _reasons(facts: ExportFacts) -> list[tuple[str, str]]:
    return [(row.name, f"{row.status}: {row.reason}") for row in facts.formats if row.status not in GOOD]


def _attempts(facts: ExportFacts) -> list[tuple[str, str]]:
    """The attempts, of formats that there are several ways to make: what they say is more than the status."""
    return [
        (row.name, attempt)
        for row in facts.formats
        for attempt in row.made_with
        if attempt not in ("passed", row.reason)
    ]


def _print_notes(console: Console, title: str, notes: Sequence[tuple[str, str]]) -> None:
    if not notes:
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in notes:
        grid.add_row(f"  {name}", escape(text))
    console.print(f"\n{title}")
    console.print(grid)


def _notes(title: str, notes: Sequence[tuple[str, str]]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {name}: {markdown(text)}" for name, text in notes)] if notes else []


def _header(facts: ExportFacts) -> Iterator[tuple[str, str]]:
    yield "bundle", f"`{facts.bundle}`"
    yield "created", markdown(facts.created)
    yield "scored on", markdown(_words(facts.data))
    yield "gate", markdown(_words(facts.gate))
    yield "threads", f"{facts.machine.get('threads', NONE)}"
    yield "examples of a call", f"{facts.machine.get('batch_size', NONE)}"
    yield from machine_facts(facts.machine)


def _words(facts: Json) -> str:
    """Facts in a line; of absolute paths the last part, as where a folder lies is nobody's business."""
    known = {key.replace("_", " "): value for key, value in facts.items() if value not in (None, [], {})}
    paths = {key: PurePath(value).name for key, value in known.items() if isinstance(value, str) and value[:1] in "/~"}
    return ", ".join(f"{key} {value}" for key, value in (known | paths).items())


def _strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _draw(axes: Axes, row: FormatRow, edge: float, area: float) -> _Point:
    accuracy = cast(float, row.accuracy)
    low, high = row.accuracy_interval or (accuracy, accuracy)
    x = row.latency_ms.p50 if row.latency_ms else edge
    colour = COLOURS.get(row.status, "grey")
    crossed = row.status not in COLOURS
    sides = [[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]]
    axes.errorbar(x, accuracy, sides, fmt="none", ecolor=colour, alpha=0.5, capsize=3)
    axes.scatter(x, accuracy, area, color=colour, marker="X" if crossed else "o", alpha=0.7, zorder=3)
    name = row.name if row.status in GOOD else f"{row.name}, {row.status}"
    return _Point(x, accuracy, low, high, name if row.latency_ms else f"{name}, not timed", colour)


def _label(axes: Axes, points: Sequence[_Point]) -> None:
    """Names the points, each at the nearest place where its name hides neither a point nor another name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = cast("Figure", axes.figure)
    figure.draw_without_rendering()  # or the layout isn't known yet
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    ends = [axes.transData.transform([(point.x, point.low), (point.x, point.high)]) for point in points]
    taken = [Bbox([low - MARGIN, high + MARGIN]) for low, high in ends]
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
    for point in points:
        label = axes.annotate(
            point.name, (point.x, point.y), (0, 0), textcoords="offset points", va="center", arrowprops=line,
            fontsize=9, color=point.colour,
        )  # fmt: skip
        label.set_in_layout(False)
        boxes = {place: _put(label, place, renderer) for place in PLACES}
        best = min(PLACES, key=lambda place: _badness(boxes[place], taken, axes.bbox))
        taken.append(_put(label, best, renderer))


def _put(label: Annotation, place: tuple[float, float], renderer: RendererBase) -> Bbox:
    from matplotlib.text import Text

    label.set_position(place)
    label.set_horizontalalignment("left" if place[0] > 1 else "right" if place[0] < -1 else "center")
    label.update_positions(renderer)
    return Text.get_window_extent(label, renderer)  # without the line


def _badness(box: Bbox, taken: Sequence[BboxBase], area: BboxBase) -> int:
    """How many other things a name would hide; far more if it would stick out."""
    is_inside = all(area.contains(x, y) for x, y in (box.min, box.max))
    return box.count_overlaps(taken) + (0 if is_inside else 100)
