"""What all benchmarks share: taking turns, medians, a header that says on what, a table and a JSON report."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
QUICK_BATCH_SIZE = 8
QUICK = (f"data.batch_size={QUICK_BATCH_SIZE}", "trainer.threads=1", "trainer.loggers=[]")
"""What ``--quick`` changes in a config."""
PLAIN_OPTIMIZER = "optim.name=sgd"
"""Changes a config to what bare loops train images with: what Muon costs isn't the loop's or the pipeline's."""


def median(values: Sequence[float]) -> float:
    """The middle of the values: one slow turn doesn't move it."""
    return statistics.median(values)


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of each round, whose turns lay side by side and so met the same machine."""
    return median([a / b for a, b in zip(numerators, denominators, strict=True)])


def take_turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measures all cases in turns, A B C A B C ..., so that a busy moment of the machine hits all alike.

    A round before the first is thrown away: it pays for imports, caches and the choice of kernels.

    Args:
        cases: Each gives its figure of one turn.
        rounds: Turns of each case.

    Returns:
        The figures of each case, ``rounds`` of them.
    """
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            figure = case()
            progress = "warm-up" if turn == 0 else f"turn {turn}/{rounds}"
            print(f"  {progress}  {name}: {figure:.4g}", file=sys.stderr, flush=True)
            if turn:
                figures[name].append(figure)
    return figures


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        subject: What was measured.
        value: The figure.
        unit: Its unit.
        at_least: The bar, where more is better.
        at_most: The bar, where less is better.
    """

    subject: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; ``None`` without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def bar(self) -> str:
        """The bar as the table shows it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """A command line with the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=rounds, help="turns of each case (default %(default)s)")
    options.add_argument("--cores", type=int, help="use only this many of the machine's cores")
    options.add_argument("--quick", action="store_true", help="tiny sizes: tries the script out, the figures are void")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the report here, not as the last line")
    return options


def folder(text: str) -> str:
    """An option's value that is a folder, as an absolute path."""
    if not Path(text).expanduser().is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return str(Path(text).expanduser().resolve())


def start(options: argparse.ArgumentParser, words: list[str] | None, packages: Sequence[str]) -> argparse.Namespace:
    """Makes the process ready to measure, before torch starts its threads.

    Args:
        options: Of ``parser``.
        words: The command line, if it isn't this process's.
        packages: What the benchmark imports besides torch and pydantic.

    Returns:
        The options' values and, as ``facts``, what ``describe`` says.

    Raises:
        SystemExit: a package is missing, or this system can't pin processes to cores.
    """
    arguments = options.parse_args(words)
    if importlib.util.find_spec("trainyard") is None:
        sys.path.append(str(ROOT / "src"))  # a clone that isn't installed; its processes need it, too
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[-1], os.environ.get("PYTHONPATH")]))
    missing = [name for name in ("torch", "pydantic", *packages) if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{Path(sys.argv[0]).name} needs {', '.join(missing)}, which this Python doesn't have: run "
                 "scripts/setup.sh, or put the unpacked wheels into a folder on PYTHONPATH")  # fmt: skip
    if arguments.cores is not None:
        if not hasattr(os, "sched_setaffinity"):
            sys.exit("--cores needs Linux: leave it out")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    arguments.facts = describe()
    return arguments


def describe() -> dict[str, object]:
    """When, by which command, and on what machine with which versions."""
    from trainyard.base.environment import describe_environment

    environment = describe_environment()
    if hasattr(os, "sched_getaffinity"):
        environment["cores"] = len(os.sched_getaffinity(0))
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        # Above the number of cores, somebody else is at work and the figures are worth less.
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **environment,
    }


def header(facts: Mapping[str, object]) -> str:
    """The facts of ``describe`` for a reader."""
    packages = cast(Mapping[str, str], facts["packages"])
    machine = f"{facts['cpu']}, {facts['cores']} cores, GPU {facts['gpu'] or 'none'}, load {facts['load']}"
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    lines = {"command": facts["command"], "date": facts["date"], "machine": machine, "platform": facts["platform"],
             "versions": f"Python {facts['python']}, {versions}"}  # fmt: skip
    return "\n".join(f"{name:9} {value}" for name, value in lines.items())


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    verdict = {True: "yes", False: "NO", None: ""}
    rows = [("subject", "figure", "unit", "bar", "met")]
    rows += [(one.subject, f"{one.value:,.4g}", one.unit, one.bar, verdict[one.met]) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def report(figures: Sequence[Figure], arguments: argparse.Namespace) -> None:
    """Prints header and table, and gives the same as JSON."""
    print(f"{header(arguments.facts)}\n\n{table(figures)}\n", flush=True)
    rows = [{"subject": one.subject, "value": one.value, "unit": one.unit, "bar": one.bar, "met": one.met}
            for one in figures]  # fmt: skip
    result = {**arguments.facts, "quick": arguments.quick, "rounds": arguments.rounds, "figures": rows}
    if arguments.json is None:
        print(json.dumps(result))
    else:
        from trainyard.base.files import write_json

        write_json(arguments.json, result)
