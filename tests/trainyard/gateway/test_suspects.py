"""Which request ended its worker: tried alone, twice, and remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from trainyard.gateway import suspects
from trainyard.gateway.batches import Batches, Workers
from trainyard.gateway.suspects import GuiltyError, Suspects
from trainyard.http.batch import Reply, Sent

OK = Reply(200, b"{}")


class Model:
    """Workers that end at these bodies, so many times each; notes what they got together."""

    def __init__(self, **ends: int) -> None:
        self.ends = {body.encode(): times for body, times in ends.items()}
        self.batches: list[list[bytes]] = []

    async def send(self, requests: Sequence[Sent]) -> Sequence[Reply | None]:
        bodies = [request.body for request in requests]
        self.batches.append(bodies)
        await asyncio.sleep(0.001)
        ending = [body for body in bodies if self.ends.get(body)]
        for body in ending:
            self.ends[body] -= 1
        return [None if ending else OK] * len(requests)


def jury(model: Model, batch_size: int = 8) -> Suspects:
    return Suspects("m", Batches(model.send, Workers(1, batch_size)))


async def ask(suspects: Suspects, *bodies: str) -> list[Reply | BaseException | None]:
    return await asyncio.gather(
        *(suspects.ask(Sent("text/plain", body.encode())) for body in bodies), return_exceptions=True
    )


@pytest.mark.parametrize("times", [0, 1, 2], ids=["well", "its batch was lost", "killed from outside, too"])
def test_one_that_is_answered_in_the_end_is_innocent(times: int) -> None:
    async def main() -> None:
        judged = jury(Model(body=times))
        assert await ask(judged, "body") == [OK]
        assert await ask(judged, "body") == [OK]

    asyncio.run(main())


def test_each_of_a_lost_batch_is_tried_alone_while_others_are_answered() -> None:
    async def main() -> None:
        model = Model(bad=9)
        *innocent, guilty = await ask(jury(model), "1", "2", "3", "bad")
        assert innocent == [OK] * 3
        assert isinstance(guilty, GuiltyError)
        assert model.batches[0] == [b"1", b"2", b"3", b"bad"]
        assert sorted(model.batches[1:]) == [[b"1"], [b"2"], [b"3"], [b"bad"], [b"bad"]]

    asyncio.run(main())


def test_one_that_ends_two_workers_alone_is_refused_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "REFUSED_SECONDS", 0.2)

    async def main() -> None:
        model = Model(bad=3)
        judged = jury(model)
        for _ in range(2):
            assert isinstance((await ask(judged, "bad"))[0], GuiltyError)
        assert len(model.batches) == 3, "what is refused reaches no worker"
        await asyncio.sleep(0.3)
        assert await ask(judged, "bad") == [OK]

    asyncio.run(main())


def test_no_more_bodies_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_REFUSED", 2)

    async def main() -> None:
        judged = jury(Model(a=3, b=3, c=3))
        for body in "abc":
            assert isinstance((await ask(judged, body))[0], GuiltyError)
        assert await ask(judged, "a") == [OK]
        assert isinstance((await ask(judged, "c"))[0], GuiltyError)

    asyncio.run(main())


def test_more_suspects_than_can_be_tried_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_TRIED", 3)

    async def main() -> None:
        got = await ask(jury(Model(a=1), 16), "a", *"bcdefghij")
        assert (got.count(OK), got.count(None)) == (3, 7)

    asyncio.run(main())
