"""Twice as many requests as a server can answer: who is refused is told at once, who is let in is answered in time.

    python benchmarks/overload.py RUN --cores 2

RUN is a run with an export. What the server can do is what 32 clients get who each wait for an answer before they ask
again. Then requests come at half of that, which is normal; at twice that, for 30 s; and at half again. The load comes
from the same machine. Bars: no error but 503; the refused are told within 300 ms and the others are answered within
three times the normal time, both in 99 of 100 cases; all is normal again within 2 s.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from measure import Figure, folder, parser, report, start

MODEL = "model"
CLIENTS = 32
SECONDS, QUICK_SECONDS = 30.0, 2.0
"""Of twice the load; the other parts take a third of it."""
NORMAL, TWICE = 0.5, 2.0
"""Shares of what the server can do."""
TIMES = 3.0
"""What an answer may take, by what it takes normally."""
MOST_REFUSED_MS, MOST_BACK = 300.0, 2.0


def main(words: list[str] | None = None) -> None:
    """Measures what a server can do, then its answers at half, twice and half the load."""
    options = parser(__doc__ or "", rounds=1)
    options.add_argument("run", type=folder, metavar="RUN", help="a run with an export")
    arguments = start(options, words, ("aiohttp", "psutil"))
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    report(asyncio.run(measure(Path(arguments.run), seconds)), arguments)


async def measure(run: Path, seconds: float) -> list[Figure]:
    """The figures of one server."""
    from open_loop import request_head, send_at_rate

    from serving import items_of
    from trainyard.client.messages import split
    from trainyard.http.request_types import TOP_K
    from trainyard.torchserve.running import running
    from trainyard.torchserve.tune import run_clients

    asked = [next(split([item], TOP_K)).request(MODEL, None) for item in items_of(run)]
    with running([f"{MODEL}={run}"]) as server:
        url, token = server.inference_url, server.token
        latencies = await run_clients(url, {"Authorization": f"Bearer {token}"}, asked, CLIENTS, seconds / 3)
        capacity = len(latencies) / (seconds / 3)
        requests = [request_head(url, one.path, token, one.content_type, len(one.body)) + one.body for one in asked]
        normal = await send_at_rate(url, requests, NORMAL * capacity, seconds / 3)
        twice = await send_at_rate(url, requests, TWICE * capacity, seconds)
        after = await send_at_rate(url, requests, NORMAL * capacity, seconds / 3)
    usual = normal.percentile_ms(200)
    slow = [
        due + taken
        for due, taken, status in zip(after.due, after.seconds, after.statuses, strict=True)
        if status != 200 or 1000 * taken > TIMES * usual
    ]
    # One of a hundred may be slow at any time.
    back = sorted(slow)[-1 - len(after.due) // 100] if len(slow) > len(after.due) // 100 else 0.0
    return [
        Figure(f"answers to {CLIENTS} clients", capacity, "requests/s"),
        Figure("normal load: errors", normal.errors(200), "", at_most=0),
        Figure("normal load: p99", usual, "ms"),
        Figure("twice the load: errors but 503", twice.errors(200, 503), "", at_most=0),
        Figure("twice the load: refused", 100 * twice.share(503), "%"),
        Figure("twice the load: p99 of the refused", twice.percentile_ms(503), "ms", at_most=MOST_REFUSED_MS),
        Figure("twice the load: p99 of the answered", twice.percentile_ms(200), "ms"),
        Figure("the same, by the normal one", twice.percentile_ms(200) / usual, "", at_most=TIMES),
        Figure("afterwards: errors but 503", after.errors(200, 503), "", at_most=0),
        Figure("afterwards: seconds until it is normal", back, "s", at_most=MOST_BACK),
    ]


if __name__ == "__main__":
    main()
