"""Which request ended its worker: tried alone, twice, and remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from trainyard.gateway import suspects
from trainyard.gateway.suspects import GuiltyError, Suspects


def answers(*given: str | None) -> Callable[[], Awaitable[str | None]]:
    """Gives these in turn."""
    turns = iter(given)

    async def send() -> str | None:
        await asyncio.sleep(0.001)
        return next(turns)

    return send


@pytest.mark.parametrize(
    "given", [("ok",), (None, "ok"), (None, None, "ok")], ids=["well", "its batch was lost", "killed from outside, too"]
)
def test_one_that_is_answered_in_the_end_is_innocent(given: tuple[str | None, ...]) -> None:
    async def main() -> None:
        jury = Suspects()
        assert await jury.ask("m", b"body", answers(*given)) == "ok"
        assert await jury.ask("m", b"body", answers("again")) == "again"

    asyncio.run(main())


def test_one_that_ends_two_workers_alone_is_refused_for_this_model_and_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suspects, "REFUSED_SECONDS", 0.2)

    async def main() -> None:
        jury = Suspects()
        for send in (answers(None, None, None), answers()):
            with pytest.raises(GuiltyError):
                await jury.ask("m", b"bad", send)
        assert await jury.ask("other", b"bad", answers("ok")) == "ok"
        await asyncio.sleep(0.3)
        assert await jury.ask("m", b"bad", answers("ok")) == "ok"

    asyncio.run(main())


def test_no_more_bodies_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_REFUSED", 2)

    async def main() -> None:
        jury = Suspects()
        for body in (b"1", b"2", b"3"):
            with pytest.raises(GuiltyError):
                await jury.ask("m", body, answers(None, None, None))
        assert await jury.ask("m", b"1", answers("ok")) == "ok"
        with pytest.raises(GuiltyError):
            await jury.ask("m", b"3", answers("ok"))

    asyncio.run(main())


def test_a_cancelled_suspect_holds_nobody_back() -> None:
    async def main() -> None:
        jury = Suspects()
        hangs = asyncio.Event()

        async def send() -> str | None:
            if not hangs.is_set():
                hangs.set()
                return None
            await asyncio.sleep(60)
            return "late"

        suspect = asyncio.create_task(jury.ask("m", b"a", send))
        await hangs.wait()
        await asyncio.sleep(0.01)
        held = asyncio.create_task(jury.ask("m", b"b", answers("ok")))
        assert await jury.ask("other", b"b", answers("ok")) == "ok"
        await asyncio.sleep(0.01)
        assert not held.done()
        suspect.cancel()
        assert await held == "ok"

    asyncio.run(main())


def test_more_suspects_than_can_be_tried_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_WAITING", 3)

    async def main() -> None:
        jury = Suspects()
        asked = (jury.ask("m", b"%d" % number, answers(None, "ok")) for number in range(10))
        got = await asyncio.gather(*asked)
        assert (got.count("ok"), got.count(None)) == (3, 7)

    asyncio.run(main())
