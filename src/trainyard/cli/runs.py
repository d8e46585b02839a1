"""The verb that lists runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard.artifacts.run import CONFIG, METRICS
from trainyard.base.errors import UsageError

Folder = Annotated[Path, typer.Argument(help="Holds the runs of one or many experiments.", metavar="[FOLDER]")]


def runs(
    folder: Folder = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List runs with their scores on the test split, the newest of each experiment last."""
    configs = sorted({*folder.glob(CONFIG), *folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")})
    found = [_facts(path.parent) for path in configs if not path.parent.is_symlink()]  # a link is `latest`
    if not found:
        raise UsageError(f"there are no runs in {folder}: name the folder that out=... had in the training")
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def _facts(run: Path) -> dict[str, Any]:
    """What is known of a run; null are the scores of one that hasn't finished, and the format before an export."""
    import yaml

    from trainyard.artifacts.export_record import newest_facts

    model = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")).get("model", {})
    path = run / METRICS
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    test, export = metrics.get("test", {}), newest_facts(run / "bundle")
    return {
        "run": str(run),
        "model": " ".join(filter(None, (model.get("kind"), model.get("name")))),
        "accuracy": test.get("accuracy"),
        "macro_f1": test.get("macro_f1"),
        "gain": metrics.get("baseline", {}).get("gain"),
        "recommended": export and export.recommended,
    }


def _print(found: list[dict[str, Any]]) -> None:
    from trainyard.report.markdown import NONE, number
    from trainyard.report.terminal import print_table

    rows = (
        (run["run"], run["model"], "unfinished" if run["accuracy"] is None else number(run["accuracy"]),
         number(run["macro_f1"]), NONE if run["gain"] is None else f"{run['gain']:+.4f}", run["recommended"] or NONE)
        for run in found
    )  # fmt: skip
    print_table(("run", "model", "accuracy", "macro-F1", "over baseline", "deploy"), rows)
