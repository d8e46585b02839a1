"""The verb that shows what a config says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trainyard.base.errors import UsageError
from trainyard.cli.app import Overrides


def config(
    config: Annotated[Path | None, typer.Argument(help="A YAML file, as in configs/.", metavar="CONFIG")] = None,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a config instead.")] = False,
) -> None:
    """Print the resolved config: every key with its value, after the file, the environment and the overrides."""
    from trainyard.config.load import dump_yaml, load_experiment
    from trainyard.config.schema import json_schema

    if schema:
        print(json.dumps(json_schema(), indent=2))
    elif config is None:
        raise UsageError("give a CONFIG file, or --schema")
    else:
        print(dump_yaml(load_experiment(config, overrides or [])), end="")
