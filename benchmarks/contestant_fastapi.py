"""A run served by FastAPI and uvicorn with a small batcher, for `servers.py`: what one writes who needs no more.

    python benchmarks/contestant_fastapi.py RUN PORT

It listens on loopback until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from servers import PATH, one_item, responder, settings

from trainyard.http.batch import Reply

RUN = Path(sys.argv[1])
asked: asyncio.Queue[tuple[bytes, asyncio.Future[Reply]]] = asyncio.Queue()


async def batch(size: int, delay: float) -> None:
    """Answers what was asked, so many at a time as are there within the delay of the first."""
    answering = responder(RUN)
    while True:
        waiting = [await asked.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while len(waiting) < size:
                    waiting.append(await asked.get())
        requests = [one_item(body, answering.accepts) for body, _ in waiting]
        replies = await asyncio.to_thread(answering.answer, requests)
        for (_, answered), reply in zip(waiting, replies, strict=True):
            answered.set_result(reply)


@contextlib.asynccontextmanager
async def batching(_: FastAPI) -> AsyncIterator[None]:
    """Starts the batcher of a process."""
    chosen = settings(RUN)
    task = asyncio.create_task(batch(chosen.batch_size, chosen.max_batch_delay_ms / 1000))
    yield
    task.cancel()


app = FastAPI(lifespan=batching)


@app.post(f"/{PATH}")
async def predict(request: Request) -> Response:
    """Answers the item that the body is."""
    answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    asked.put_nowait((await request.body(), answered))
    reply = await answered
    return Response(reply.body, reply.status, media_type=reply.content_type)


if __name__ == "__main__":
    uvicorn.run(
        "contestant_fastapi:app", host="127.0.0.1", port=int(sys.argv[2]), workers=settings(RUN).workers,
        access_log=False, log_level="warning",
        timeout_worker_healthcheck=60,  # imports take longer than uvicorn's 5 s on a busy machine
    )  # fmt: skip
