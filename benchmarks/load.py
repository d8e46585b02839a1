"""Closed-loop load for `serving.py`, in a process of its own: each connection sends its next request after an answer.

    python benchmarks/load.py URL TOKEN_FILE CONTENT_TYPE FOLDER CONNECTIONS SECONDS

FOLDER holds the bodies, which are sent in turn. Prints {"requests", "seconds"} as JSON; any answer but 200 ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    """Sends and counts."""
    url, token_file, content_type, folder, connections, seconds = sys.argv[1:]
    key = json.loads(Path(token_file).read_text())["inference"]["key"]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": content_type}
    bodies = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    print(json.dumps(asyncio.run(load(url, headers, bodies, int(connections), float(seconds)))))


async def load(url: str, headers: dict[str, str], bodies: list[bytes], connections: int, seconds: float) -> object:
    """Sends from all connections until the time is over; what is on its way then is waited for and counted."""
    import aiohttp

    turns = itertools.cycle(bodies)
    connector = aiohttp.TCPConnector(limit=connections)
    began = time.perf_counter()
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        tasks = [send(session, url, turns, began + seconds) for _ in range(connections)]
        counts = await asyncio.gather(*tasks)
    return {"requests": sum(counts), "seconds": time.perf_counter() - began}


async def send(session: object, url: str, bodies: Iterator[bytes], end: float) -> int:
    """One connection; gives its number of answers."""
    count = 0
    while time.perf_counter() < end:
        async with session.post(url, data=next(bodies)) as response:  # type: ignore[attr-defined]
            content = await response.read()
            if response.status != 200:
                sys.exit(f"{url} answered {response.status}: {content[:300].decode(errors='replace')}")
        count += 1
    return count


if __name__ == "__main__":
    main()
