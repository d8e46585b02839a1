"""Who is let in, and who is refused because too many are before it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from trainyard.gateway.batches import Workers
from trainyard.gateway.bodies import Refused
from trainyard.gateway.load import ROUNDS, TARGET_SECONDS, Load
from trainyard.http.batch import Reply

OK = Reply(200, b"{}")


class Model:
    """One that answers so many a second, one after another."""

    def __init__(self, per_second: float, answer: Reply = OK) -> None:
        self._pause, self._answer, self._turn = 1 / per_second, answer, asyncio.Lock()
        self.asked = 0

    async def ask(self) -> Reply:
        self.asked += 1
        async with self._turn:
            await asyncio.sleep(self._pause)
        return self._answer


async def flood(load: Load, name: str, model: Model, requests: int, pause: float = 0.0) -> tuple[int, list[float]]:
    """Sends requests without waiting for answers; gives how many were refused, and the seconds of the others."""
    loop, refused, seconds = asyncio.get_running_loop(), 0, list[float]()

    async def one() -> None:
        began = loop.time()
        await load.counted(name, model.ask())
        seconds.append(loop.time() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(requests):
            try:
                load.check(name)
                group.create_task(one())
            except Refused:
                refused += 1
            await asyncio.sleep(pause)
    return refused, seconds


def test_a_flood_is_refused_by_the_time_that_it_would_wait() -> None:
    async def main() -> None:
        load, model = Load({"m": Workers(1)}, 512), Model(500)
        await flood(load, "m", model, 50, pause=0.003)
        refused, seconds = await flood(load, "m", model, 1000, pause=0.0005)
        assert refused > 200
        assert sorted(seconds)[len(seconds) * 9 // 10] < 3 * TARGET_SECONDS
        assert len(seconds) > 100, "it isn't refused altogether"

    asyncio.run(main())


def test_a_slow_model_gets_what_keeps_its_workers_busy() -> None:
    async def main() -> None:
        load, model = Load({"m": Workers(32)}, 512), Model(200)
        await flood(load, "m", model, 1)
        load._models["m"].pace = 10.0
        refused, _ = await flood(load, "m", model, ROUNDS * 32 + 5)
        assert refused == 5

    asyncio.run(main())


def test_a_flooded_model_leaves_the_others_their_share() -> None:
    async def main() -> None:
        load = Load({"a": Workers(8), "b": Workers(8)}, 40)
        slow, fast = Model(20), Model(10_000)
        flooding = asyncio.create_task(flood(load, "a", slow, 100))
        while slow.asked < 20:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert slow.asked == 20
        assert (await flood(load, "b", fast, 20))[0] == 0
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding
        load.check("a")

    asyncio.run(main())


@pytest.mark.parametrize("status", [503, 504])
def test_what_isnt_answered_tells_nothing_of_the_pace(status: int) -> None:
    async def main() -> None:
        load = Load({"m": Workers(8)}, 512)
        await load.counted("m", Model(100).ask())
        before = load._models["m"].pace
        await load.counted("m", Model(10_000, Reply(status, b"")).ask())
        assert load._models["m"].pace == before

    asyncio.run(main())
