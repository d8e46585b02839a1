"""What the gateway costs a small model: requests/s through it, and of the TorchServe behind it asked directly.

    python benchmarks/servers.py RUN --cores 2

RUN is a run of images with an export. Both ways lead to the same workers, handler and batches, so that what differs is
the gateway; they take turns. Bar: with 32 connections, 0.8 of what TorchServe answers alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Figure, describe, folder, median, median_ratio, parser, report, start, take_turns

if TYPE_CHECKING:
    from trainyard.torchserve.running import Running

LEAST = 0.8
ADDRESS = "inference_address="


def main(words: list[str] | None = None) -> None:
    """Measures both in turns."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("run", type=folder, metavar="RUN", help="a run of images with an export")
    arguments = options.parse_args(words)
    start(arguments, ("aiohttp", "psutil"))
    from serving import CONNECTIONS, MODEL, QUICK_SECONDS, SECONDS, items_of, rate, written
    from trainyard.torchserve.running import running

    facts, run = describe(), Path(arguments.run)
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    with running([f"{MODEL}={run}"]) as server, written(items_of(run)) as load:
        cases = {"through the gateway": partial(rate, server, load, seconds),
                 "TorchServe alone": partial(rate, naked(server), load, seconds)}  # fmt: skip
        turns = take_turns(cases, arguments.rounds)
    through, alone = turns.values()
    figures = [
        Figure(f"{CONNECTIONS} connections: {name}", median(rates), "requests/s") for name, rates in turns.items()
    ]
    figures.append(Figure("gateway / TorchServe alone", median_ratio(through, alone), "", at_least=LEAST))
    report(facts, figures, arguments)


def naked(server: Running) -> Running:
    """The same server, asked at TorchServe's own port."""
    keys = server.management_token_file
    lines = keys.with_name("config.properties").read_text(encoding="utf-8").splitlines()
    [url] = [line.removeprefix(ADDRESS) for line in lines if line.startswith(ADDRESS)]
    return replace(server, inference_url=url, token_file=keys)


if __name__ == "__main__":
    main()
