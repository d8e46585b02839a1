"""The verb that shows what a config says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trainyard.base.errors import EXIT_REFUSED, UsageError
from trainyard.cli.app import Overrides


def config(
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as in configs/.", metavar="CONFIG")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a config instead.")] = False,
    migrate: Annotated[bool, typer.Option("--migrate", help="Move renamed keys in these files instead.")] = False,
) -> None:
    """Print the resolved config: every key with its value, after the file, the environment and the overrides."""
    from trainyard.config.load import dump_yaml, load_experiment
    from trainyard.config.schema import json_schema

    if migrate and config is not None:
        migrate_files([config, *map(Path, overrides or [])])
    elif schema:
        print(json.dumps(json_schema(), indent=2))
    elif config is None:
        raise UsageError("give a CONFIG file, or --schema")
    else:
        print(dump_yaml(load_experiment(config, overrides or [])), end="")


def migrate_files(files: Sequence[Path]) -> None:
    """Moves the keys that a release has renamed, and says which; what is left to be done by hand is exit code 3."""
    from trainyard.base.files import atomic_write
    from trainyard.config.load import read_text
    from trainyard.config.moved import migrate

    left = False
    for file in files:
        text, moves, sentences = migrate(read_text(file))
        if moves:
            with atomic_write(file.resolve()) as written:
                written.write(text.encode())
        for old, new in moves.items():
            print(f"{file}: {old} is {new} now")
        for sentence in sentences:
            print(f"{file}: {sentence}", file=sys.stderr)
        left = left or bool(sentences)
    if left:
        raise typer.Exit(EXIT_REFUSED)
