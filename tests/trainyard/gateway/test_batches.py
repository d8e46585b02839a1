"""Which requests go to a worker together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from trainyard.gateway.batches import AHEAD, Batches, Workers
from trainyard.http.batch import Reply, Sent


class Model:
    """Answers a batch when it is told to; an answer is the request's body."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.go = asyncio.Semaphore(0)

    async def send(self, requests: Sequence[Sent]) -> Sequence[Reply | None]:
        self.batches.append([request.body for request in requests])
        await self.go.acquire()
        return [Reply(200, request.body) for request in requests]


async def start(batches: Batches, *bodies: str, is_alone: bool = False) -> list[asyncio.Task[Reply | None]]:
    asked = [asyncio.create_task(batches.ask(Sent("", body.encode()), is_alone)) for body in bodies]
    await asyncio.sleep(0.005)
    return asked


async def told(model: Model, asked: Sequence[asyncio.Task[Reply | None]]) -> bytes:
    for _ in range(100):
        model.go.release()
    replies = await asyncio.gather(*asked)
    return b"".join(reply.body for reply in replies if reply)


def test_one_alone_goes_at_once_and_what_comes_while_workers_are_busy_goes_together() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=1, batch_size=3))
        asked = [*await start(batches, "a"), *await start(batches, "b"), *await start(batches, *"cdefg")]
        assert model.batches == [[b"a"], [b"b"]], f"{AHEAD} waits in TorchServe"
        assert await told(model, asked) == b"abcdefg"
        assert model.batches[2:] == [[b"c", b"d", b"e"], [b"f", b"g"]]

    asyncio.run(main())


def test_what_comes_together_goes_together() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=2, batch_size=8))
        await told(model, await start(batches, *"abcd"))
        assert model.batches == [[b"a", b"b", b"c", b"d"]]

    asyncio.run(main())


def test_with_a_delay_a_busy_worker_gets_full_batches_first() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=2, batch_size=2, batch_delay=0.1))
        asked = [*await start(batches, "a"), *await start(batches, "b")]
        assert model.batches == [[b"a"]], "a lonely one doesn't wait, the next does"
        asked += await start(batches, "c")
        assert model.batches == [[b"a"], [b"b", b"c"]]
        asked += await start(batches, "d")
        await asyncio.sleep(0.15)
        assert model.batches[2:] == [[b"d"]]
        await told(model, asked)

    asyncio.run(main())


def test_one_that_is_to_be_alone_is() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=1, batch_size=8))
        asked = [*await start(batches, "1", "2"), *await start(batches, "3"), *await start(batches, "a", "b")]
        asked += [*await start(batches, "s", "t", is_alone=True), *await start(batches, "c", "d")]
        await told(model, asked)
        assert model.batches[2:] == [[b"a", b"b"], [b"s"], [b"t"], [b"c", b"d"]]

    asyncio.run(main())


def test_a_batch_has_no_more_bytes_than_one_body_may_have() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=4, batch_size=8, batch_bytes=5))
        await told(model, await start(batches, "aaa", "bb", "c", "dddddddd", "e"))
        assert model.batches == [[b"aaa", b"bb"], [b"c"], [b"dddddddd"], [b"e"]]

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_is_left_out() -> None:
    async def main() -> None:
        model = Model()
        batches = Batches(model.send, Workers(count=1, batch_size=1))
        asked = await start(batches, *"abcd")
        for gone in (asked[0], asked[2]):
            gone.cancel()
        await asyncio.sleep(0)
        assert await told(model, [asked[1], asked[3]]) == b"bd"
        assert model.batches == [[b"a"], [b"b"], [b"d"]]

    asyncio.run(main())
