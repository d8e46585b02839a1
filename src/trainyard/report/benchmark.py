"""A benchmark of a bundle's formats for people and for scripts: JSON, a Markdown document, a figure, a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from trainyard.artifacts.bundle import Json
from trainyard.artifacts.export_record import FormatName
from trainyard.base.files import write_json, write_text
from trainyard.formats.table import all_formats, find_format
from trainyard.report.export import machine_facts, milliseconds
from trainyard.report.figures import save_png
from trainyard.report.markdown import markdown, markdown_table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
FACTS, DOCUMENT, FIGURE = "benchmark.json", "benchmark.md", "benchmark.png"
TITLES = ("threads", "batch", "format", "p50 ms", "p95 ms", "p99 ms", "spread", "examples/s", "speed-up")
LEAST_WIDTH = {"spread": 89, "p99 ms": 98}
"""Columns of a terminal that has room for these figures too."""
PANELS_ABREAST = 3
NOT_TIMED = "decoding, tokenising, batching and the server come on top"


class Percentiles(BaseModel):
    """Milliseconds of a call."""

    p50: float
    p95: float
    p99: float


class Cell(BaseModel):
    """A format at one batch size and thread count."""

    format: FormatName
    threads: int
    batch_size: int
    shape: list[int]
    """Of the model's first input: examples, then the tokens of the longest or an image's channels and sides."""
    calls: int
    """Calls that were timed."""
    latency_ms: Percentiles
    spread: float
    """Interquartile range of the latency, over its median."""
    throughput: float
    """Examples a second, at the median latency."""
    speedup: float
    """Over ``eager``: the median of the ratios within a round."""


class Benchmark(BaseModel):
    """The content of ``benchmark.json``."""

    schema_version: int = SCHEMA_VERSION
    bundle: str
    """Digest of the bundle."""
    export: str | None
    """Id of the export; null if there is none."""
    created: str
    inputs: str
    """What the model was shown."""
    seconds: float
    """Time for all formats at one batch size and thread count."""
    left_out: dict[str, str]
    """Formats that weren't measured, and why."""
    machine: Json
    """Processor with its flags, the load before the measurement, versions."""
    cells: list[Cell]


def write_benchmark(benchmark: Benchmark, folder: Path) -> None:
    """Writes ``benchmark.json``, ``benchmark.md`` and ``benchmark.png``."""
    write_json(folder / FACTS, benchmark.model_dump(mode="json"))
    write_text(folder / DOCUMENT, benchmark_markdown(benchmark))
    save_png(benchmark_figure(benchmark), folder / FIGURE)


def print_benchmark(benchmark: Benchmark) -> None:
    """Prints a row per format, batch size and thread count."""
    console = Console()
    shown = [place for place, title in enumerate(TITLES) if console.width >= LEAST_WIDTH.get(title, 0)]
    table = Table()
    for place in shown:
        table.add_column(TITLES[place], justify="left" if TITLES[place] == "format" else "right")
    for before, cell in zip([None, *benchmark.cells], benchmark.cells, strict=False):
        if before and (before.threads, before.batch_size) != (cell.threads, cell.batch_size):
            table.add_section()
        table.add_row(*(_row(cell)[place] for place in shown))
    console.print(table)
    console.print(f"Timed is the model alone: {NOT_TIMED}.", highlight=False)


def benchmark_markdown(benchmark: Benchmark) -> str:
    """Gives the benchmark as a Markdown document, opened by what it was measured on."""
    lines = [
        "# Benchmark",
        "",
        *markdown_table(("fact", "value"), _header(benchmark)),
        "",
        *markdown_table(TITLES, (_row(cell) for cell in benchmark.cells)),
        "",
        "Times are of one call with a whole batch, examples/s are those of the median call, the spread is the",
        "interquartile range over the median, and the speed-up is the median of the ratios to `eager` within a round.",
        "",
        f"![Throughput by batch size]({FIGURE})",
    ]
    return "\n".join(lines) + "\n"


def benchmark_figure(benchmark: Benchmark) -> Figure:
    """Draws throughput by batch size, a line per format, a panel per thread count."""
    # Not pyplot: it keeps every figure, needs a backend, and is not made for threads.
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(cell.threads for cell in benchmark.cells))
    sizes = sorted({cell.batch_size for cell in benchmark.cells})
    across = min(len(counts), PANELS_ABREAST)
    down = math.ceil(len(counts) / across)
    figure = Figure(figsize=(1.5 + 3.8 * across, 0.8 + 3.4 * down), dpi=100, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).flat
    for axes, threads in zip(panels, counts, strict=False):
        for name, cells in _lines(benchmark, threads):
            x, y = [cell.batch_size for cell in cells], [cell.throughput for cell in cells]
            axes.plot(x, y, _line(name), color=_colour(name), label=name, markersize=4)
        axes.set_title("1 thread" if threads == 1 else f"{threads} threads", fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("examples of a call")
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(counts) :]:
        axes.remove()
    figure.axes[0].set_ylim(bottom=0)
    figure.supylabel("examples a second", fontsize=10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure


def _line(name: FormatName) -> str:
    """Dashed in less than 32 bits."""
    return "o-" if find_format(name).precision == "fp32" else "o--"


def _colour(name: FormatName) -> str:
    """Matplotlib's next colour for each format in 32-bit floats; others have that of the one they should beat."""
    format = find_format(name)
    family = name if format.precision == "fp32" or format.baseline == "eager" else format.baseline
    return f"C{list(all_formats()).index(family)}"


def _lines(benchmark: Benchmark, threads: int) -> Iterator[tuple[str, Sequence[Cell]]]:
    cells = sorted((cell for cell in benchmark.cells if cell.threads == threads), key=lambda cell: cell.batch_size)
    for name in dict.fromkeys(cell.format for cell in benchmark.cells):
        yield name, [cell for cell in cells if cell.format == name]


def _row(cell: Cell) -> tuple[str, ...]:
    latency = cell.latency_ms
    return (
        str(cell.threads),
        str(cell.batch_size),
        cell.format,
        *(milliseconds(value) for value in (latency.p50, latency.p95, latency.p99)),
        f"{cell.spread:.0%}",
        number(cell.throughput, 0 if cell.throughput >= 100 else 1),
        number(cell.speedup, 2),
    )


def _header(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    yield "bundle", f"`{benchmark.bundle}`"
    yield "export", markdown(benchmark.export or "none, so there is eager alone")
    yield "created", benchmark.created
    yield "inputs", markdown(f"{benchmark.inputs}; of each batch size {', '.join(_shapes(benchmark))}")
    yield "timed", f"the model alone, on the CPU: {NOT_TIMED}"
    yield "time", f"{benchmark.seconds:g} s for all formats, in turns, at each batch size and thread count"
    for format, reason in benchmark.left_out.items():
        yield f"left out: {format}", markdown(reason)
    yield from machine_facts(benchmark.machine)
    yield "load before", f"{benchmark.machine.get('load')}; above the number of cores, others were at work"


def _shapes(benchmark: Benchmark) -> list[str]:
    return list(dict.fromkeys("x".join(map(str, cell.shape)) for cell in benchmark.cells))
