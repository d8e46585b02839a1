"""The verb that tells whether a model is better than another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

import typer

from trainyard.base.errors import EXIT_REFUSED, UsageError
from trainyard.cli.app import FORMATS, check_format


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders or bundles; the others are compared with the first.", metavar="RUN..."),
    ],
    format: Annotated[
        list[str] | None,
        typer.Option(
            callback=lambda names: [check_format(name) for name in names or []],
            metavar=FORMATS,
            help="Compare this format of each run; of one run, with the model as it was trained. May be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison to this HTML file.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 3 unless the others are at least as good.")] = False,
) -> None:
    """Compare models on the same test examples: is the second better than the first, or was it chance?

    At least as good is what has neither a lower accuracy nor a lower recall of a class by more than chance (p < 0.05).
    """
    from trainyard.evaluation.candidates import open_candidate
    from trainyard.evaluation.paired import compare as compare_answers
    from trainyard.report.compare import Model, comparison_json, print_comparison, write_page
    from trainyard.report.terminal import check_writable

    trained = [None] if len(runs) == 1 or not format else []
    wanted = [(run, name) for run in runs for name in (*trained, *(format or []))]
    if not 2 <= len(wanted) <= len(ascii_uppercase):
        raise UsageError(f"give 2 to {len(ascii_uppercase)} runs to compare, or one and --format FORMAT of it")
    if html is not None:
        check_writable(html)
    first, *others = (open_candidate(run, name) for run, name in wanted)
    differences = [compare_answers(first.answers, one.answers, (first.name, one.name)) for one in others]
    models = list(map(Model, ascii_uppercase, [first, *others], [None, *differences]))
    if html is not None:
        write_page(html, models)
    if as_json:
        print(json.dumps(comparison_json(models), indent=2))
    else:
        print_comparison(models)
    complaints = [(one.name, why) for one, found in zip(others, differences, strict=True) for why in found.complaints]
    if gate and complaints:
        for name, why in complaints:
            print(f"trainyard: {name} isn't at least as good as {first.name}: {why}", file=sys.stderr)
        raise typer.Exit(EXIT_REFUSED)
