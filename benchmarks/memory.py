"""Memory of a server of two small models: after its start, and after six clients have sent it the largest bodies.

    python benchmarks/memory.py IMAGES TEXTS

IMAGES and TEXTS are runs with exports, as of configs/digits_resnet.yaml and tickets_bert.yaml. The bodies have almost
16 MB: a picture, what isn't a picture, a text that is too long, and 160 texts where 128 are taken. All processes count:
gateway, Java and workers. RSS counts pages that processes share once for each of them, PSS once in all. Bar: 900 MB.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from measure import Figure, folder, median, parser, report, start

if TYPE_CHECKING:
    from trainyard.torchserve.running import Running

CLIENTS = 6
SECONDS, QUICK_SECONDS = 20.0, 2.0
"""Of the clients."""
PAUSE = 0.05
"""Seconds that a client waits after it was told to come again."""
MOST_MB = 900.0
SIDE = 4100
"""Pixels of a picture of noise that has almost 16 MB."""


class Body(NamedTuple):
    """A request: to which model, of what type, and what it sends."""

    model: str
    content_type: str
    content: bytes


def main(words: list[str] | None = None) -> None:
    """Measures some servers, one after the other."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument("images", type=folder, metavar="IMAGES", help="a run of images with an export")
    options.add_argument("texts", type=folder, metavar="TEXTS", help="a run of texts with an export")
    arguments = start(options, words, ("aiohttp", "psutil", "ts"))
    from trainyard.torchserve.running import running

    bodies = largest_bodies()
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    figures: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        with running([f"images={arguments.images}", f"texts={arguments.texts}"], ["--format", "onnx"]) as server:
            seen = {"after the start": megabytes(server.pid)}
            statuses = asyncio.run(send(server, bodies, seconds))
            seen["after the largest bodies"] = megabytes(server.pid)
        print(f"  {statuses}; {seen}", file=sys.stderr, flush=True)
        for moment, kinds in seen.items():
            for kind, value in kinds.items():
                figures.setdefault(f"{moment}: {kind}", []).append(value)
    report([Figure(name, median(values), "MB", at_most=MOST_MB) for name, values in figures.items()], arguments)


def largest_bodies() -> list[Body]:
    """Bodies for which a server needs most."""
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((SIDE, SIDE), 100).save(file, "PNG")
    texts = json.dumps({"instances": ["word " * 19_000] * 160}).encode()
    return [
        Body("images", "image/png", file.getvalue()),
        Body("texts", "text/plain", b"a b " * 3_990_000),
        Body("images", "application/octet-stream", bytes(15_900_000)),
        Body("texts", "application/json", texts),
    ]


async def send(server: Running, bodies: list[Body], seconds: float) -> Counter[int]:
    """Has the clients send bodies in turn; gives the statuses of the answers."""
    import aiohttp

    loop, turns, statuses = asyncio.get_running_loop(), itertools.cycle(bodies), Counter[int]()
    end = loop.time() + seconds

    async def client() -> None:
        while loop.time() < end:
            body = next(turns)
            url, headers = f"{server.inference_url}/predictions/{body.model}", {"Content-Type": body.content_type}
            async with session.post(url, data=io.BytesIO(body.content), headers=headers) as response:
                await response.read()
                statuses[response.status] += 1
                if response.status == 503:
                    await asyncio.sleep(PAUSE)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session:
        await asyncio.gather(*[client() for _ in range(CLIENTS)])
    return statuses


def megabytes(pid: int) -> dict[str, float]:
    """RSS and PSS of a process and all below it."""
    import psutil

    root = psutil.Process(pid)
    found = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
    return {"RSS": sum(one.rss for one in found) / 1e6, "PSS": sum(one.pss for one in found) / 1e6}


if __name__ == "__main__":
    main()
