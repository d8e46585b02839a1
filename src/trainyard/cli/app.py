"""The command line's application, and the arguments that its verbs share."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainyard.formats.table import LIBRARY, find_format

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing what draws frames around the help takes longer than all the rest
    context_settings={"max_content_width": 120},
    help="From a folder of images or a file of texts to a trained, sealed and measured classifier.",
)

Config = Annotated[Path, typer.Argument(help="A YAML file, as in configs/.", metavar="CONFIG")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted.key=value words.", metavar="[KEY=VALUE]...")]
Run = Annotated[Path, typer.Argument(help="A run folder, or its bundle.", metavar="RUN")]
Expect = Annotated[
    str | None,
    typer.Option(
        envvar="TRAINYARD_EXPECT",
        help="Digest that the bundle must have (it vouches for eager alone), or its export (for every format).",
        metavar="DIGEST",
    ),
]
Device = Annotated[
    Literal["cpu", "cuda"] | None,
    typer.Option(help="What it runs on, by default what the format was made for; with cuda each worker gets a GPU."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one for each core by default, up to 4.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of a call, by default what cores remain.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Most requests of a call; 8 by default.")]
MaxBatchDelay = Annotated[
    int | None,
    typer.Option(min=0, help="Milliseconds that a request waits for others, if workers are busy; 2 by default."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks; also taken after the verb.")]


FORMATS = f"[{'|'.join(LIBRARY)}]"
AUTO_OR_FORMATS = f"[auto|{'|'.join(LIBRARY)}]"


def check_format(name: str) -> str:
    """A format's name, of the library or of the project; or ``auto``, which only some verbs have as their default."""
    if name != "auto":
        find_format(name)
    return name


@app.callback()
def options(debug: Debug = False) -> None:
    """Options of all verbs."""
    if debug:
        os.environ["TRAINYARD_DEBUG"] = "1"
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # These tell of their requests at a level that is meant for them alone.
    for noisy in ("httpx", "httpx2", "filelock", "matplotlib", "datasets", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # torchao registers its types in a way that torch deprecates. A filter, since torch sets its loggers' levels anew.
    logging.getLogger("torch.utils._pytree").addFilter(lambda record: "register_constant()" not in record.getMessage())
    # A machine with CUDA's compiler and without a GPU is one to build on, and nothing is wrong with it.
    logging.getLogger("torch.utils.cpp_extension").addFilter(lambda record: "No CUDA" not in record.getMessage())
