"""Choosing settings by trying them: which are tried, which is the best, and how clients measure a server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from trainyard import cli
from trainyard.artifacts.bundle import Bundle
from trainyard.artifacts.export_record import FormatRow, open_trusted
from trainyard.base.cpu import Cpu
from trainyard.base.errors import TrainyardError
from trainyard.client.messages import Request
from trainyard.torchserve import settings as settings_module
from trainyard.torchserve import tune
from trainyard.torchserve.archive import unpack
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.tune import (
    BATCH_SIZES,
    NEAR,
    Measured,
    NothingMeetsError,
    choose,
    grid,
    run_clients,
    sample_requests,
    search,
    tune_archive,
)

MakeExport = Callable[..., Path]
Row = Callable[..., FormatRow]


def pairs(settings: list[Settings]) -> list[tuple[int, int]]:
    return sorted({(one.workers, one.threads) for one in settings})


def tried(**values: int | str) -> Settings:
    return Settings.chosen(format="onnx", **values)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def set_cores(count: int) -> None:
        for module in (tune, settings_module):
            monkeypatch.setattr(module, "this_cpu", lambda: Cpu("cpu", (), count))

    return set_cores


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [(1, 1)]), (2, [(1, 1), (1, 2), (2, 1)]), (4, [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]),
     (6, [(1, 4), (1, 6), (2, 2), (4, 1), (6, 1)]),
     (16, [(1, 8), (1, 16), (2, 4), (2, 8), (4, 2), (4, 4), (8, 1), (8, 2), (16, 1)])],
)  # fmt: skip
def test_the_grid_fills_the_cores_and_no_more(
    count: int, expected: list[tuple[int, int]], cores: Callable[[int], None]
) -> None:
    cores(count)
    found = grid(tried())

    assert pairs(found) == expected
    assert len(found) == len(expected) * len(BATCH_SIZES)
    assert [one.batch_size for one in found] == sorted(one.batch_size for one in found), "small batches first"


def test_what_is_chosen_is_not_varied(cores: Callable[[int], None]) -> None:
    cores(4)
    assert pairs(grid(tried(workers=2))) == [(2, 1), (2, 2)]
    assert pairs(grid(tried(threads=4))) == [(1, 4)]
    assert pairs(grid(tried(workers=9))) == [(9, 1)]
    all_given = tried(workers=3, threads=5, batch_size=7, max_batch_delay_ms=9)
    assert grid(all_given) == [all_given]
    assert [one.batch_size for one in grid(tried(workers=1, threads=4))] == list(BATCH_SIZES)
    gpu = grid(Settings.chosen(format="eager", device="cuda"))
    assert {one.device for one in gpu} == {"cuda"}
    assert pairs(gpu) == [(1, 1), (2, 1), (4, 1)]


def one(batch: int = 8, rps: float = 100, p99: float = 10, failure: str = "", workers: int = 1) -> Measured:
    return Measured(tried(workers=workers, batch_size=batch), 4, rps, p99 / 2, p99, failure)


def test_the_best_has_the_highest_throughput_of_those_that_keep_the_bound() -> None:
    slow, good, worse = one(32, rps=500, p99=101), one(8, rps=300, p99=99), one(1, rps=200, p99=1)
    failed = one(16, rps=0, p99=0, failure="503")

    assert choose([slow, good, worse, failed], 100) == good
    assert choose([slow, good, worse], 101) == slow
    assert choose([slow, good, worse], 5) == worse


def test_of_those_that_are_alike_the_quickest_is_taken() -> None:
    best, near, behind = one(32, rps=1000, p99=90), one(8, rps=971, p99=20), one(1, rps=969, p99=2)

    assert choose([best, near, behind], 100) == near


def test_where_nothing_keeps_the_bound_the_quickest_is_told() -> None:
    with pytest.raises(
        NothingMeetsError, match=r"within 5 ms here, the quickest took 8.3 ms \(workers 1, .*raise --p99"
    ):
        choose([one(p99=9), one(1, p99=8.3), one(32, failure="503")], 5)
    with pytest.raises(NothingMeetsError, match=r"nothing could be measured \(it died\): give --workers"):
        choose([one(failure="it died")], 5)
    assert NothingMeetsError.exit_code == 1


@given(
    measured=st.lists(
        st.builds(one, rps=st.floats(1, 1e4), p99=st.floats(0.1, 500), failure=st.sampled_from(["", "", "503"])),
        min_size=1,
    ),
    bound=st.floats(0.1, 500),
)
def test_the_choice_keeps_the_bound_and_is_near_the_best(measured: list[Measured], bound: float) -> None:
    keeping = [each for each in measured if not each.failure and each.p99_ms <= bound]
    try:
        best = choose(measured, bound)
    except NothingMeetsError:
        assert not keeping
        return
    assert best in keeping
    assert best.requests_per_second >= NEAR * max(each.requests_per_second for each in keeping)


class Machine:
    """Measures what it is told."""

    def __init__(self, p99: Callable[[Settings], float]) -> None:
        self.p99, self.tried = p99, list[Settings]()

    def __call__(self, settings: Settings) -> Measured:
        self.tried.append(settings)
        p99 = self.p99(settings)
        failure = "" if p99 else "it didn't start"
        return Measured(settings, 1, settings.workers * settings.batch_size**0.5, p99 / 2, p99, failure)


def test_larger_batches_are_not_tried_where_a_small_one_takes_too_long(cores: Callable[[int], None]) -> None:
    cores(2)
    machine = Machine(lambda settings: 30 * settings.batch_size / settings.workers)

    measured = search(grid(tried()), 70, machine)
    best = choose(measured, 70)

    assert [(each.workers, each.threads, each.batch_size) for each in machine.tried[:6]] == [
        (1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 4), (1, 2, 4), (2, 1, 4),
    ]  # fmt: skip
    assert (best.settings.workers, best.settings.batch_size) == (2, 4)
    assert len(machine.tried) == len(measured) == 7


def test_what_does_not_start_is_left_out(cores: Callable[[int], None]) -> None:
    cores(2)
    machine = Machine(lambda settings: 0 if settings.workers == 2 else 1)

    measured = search(grid(tried(max_batch_delay_ms=3)), 70, machine)
    best = choose(measured, 70)

    assert best.settings.workers == 1
    assert best.settings.max_batch_delay_ms == 3
    assert sum(bool(each.failure) for each in measured) == 1


async def _load(handler: Callable[[web.Request], object], clients: int, seconds: float) -> list[float]:
    application = web.Application()
    application.router.add_post("/predictions/{name}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        requests = [Request("predictions/a", content) for content in (b"1", b"2", b"3")]
        return await run_clients(f"http://{host}:{port}", {"X-Own": "yes"}, requests, clients, seconds)
    finally:
        await runner.cleanup()


def test_clients_ask_all_at_once_and_again_when_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "WARM_UP_SECONDS", 0.05)
    here = most = 0
    bodies = set()

    async def answer(request: web.Request) -> web.Response:
        nonlocal here, most
        here += 1
        most = max(most, here)
        bodies.add(await request.read())
        assert request.headers["X-Own"] == "yes"
        await asyncio.sleep(0.01)
        here -= 1
        return web.Response(text="{}")

    latencies = asyncio.run(_load(answer, 5, 0.5))

    assert (most, bodies) == (5, {b"1", b"2", b"3"})
    assert len(latencies) > 5
    assert min(latencies) >= 0.01


def test_a_failure_is_not_taken_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "WARM_UP_SECONDS", 0.0)

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, text="busy")

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    with pytest.raises(TrainyardError, match="503 busy"):
        asyncio.run(_load(refuse, 2, 0.3))
    with pytest.raises(TrainyardError, match="ServerDisconnectedError"):
        asyncio.run(_load(hang_up, 2, 0.3))


def test_what_fails_while_the_server_warms_up_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "WARM_UP_SECONDS", 0.2)
    asked = 0

    async def refuse_first(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503 if asked == 1 else 200)

    assert asyncio.run(_load(refuse_first, 1, 0.3))


def test_the_samples_are_asked_for(digits_run: Path) -> None:
    bundle = Bundle.open(digits_run)
    images = sorted((bundle.path / "samples" / "golden").iterdir())

    requests = sample_requests(bundle)

    assert [request.body for request in requests] == [image.read_bytes() for image in images]
    assert {request.path for request in requests} == {"predictions/model"}


def test_the_verb_keeps_what_was_measured(
    bare_run: Path,
    make_export: MakeExport,
    row: Row,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    make_export(row("onnx"))
    monkeypatch.setattr(tune, "measure", lambda _, settings, *__: Machine(lambda one: one.batch_size)(settings))

    def archive(*words: str) -> int:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(sys, "argv", ["trainyard", "archive", str(bare_run), "--tune", *words])
            cli.main()
        return int(end.value.code or 0)

    assert archive("--p99", "0.5") == 1
    out, err = capsys.readouterr()
    assert "the quickest took 1.0 ms" in err.splitlines()[-1]
    assert (out, (bare_run / "archives").exists()) == ("", False), "nothing is archived behind one's back"

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["trainyard", "archive", str(bare_run), "--p99", "20"])
        cli.main()
    assert end.value.code == 2
    assert "--p99 belongs to --tune" in capsys.readouterr().err

    assert archive("--p99", "20", "--workers", "2", "--threads", "1") == 0
    out, _ = capsys.readouterr()
    assert "chosen: workers 2, threads 1, batch size 16" in caplog.text
    assert "too slow" in caplog.text
    path = Path(out.splitlines()[-1])
    (bare_run / "unpacked").mkdir()
    settings = unpack(path, bare_run / "unpacked").settings
    assert (settings.workers, settings.batch_size) == (2, 16)
    with ZipFile(path) as made:
        tuning = json.loads(made.read("tuning.json"))
    assert (tuning["p99_ms"], tuning["chosen"]["batch_size"]) == (20, 16)
    assert len(tuning["measured"]) == len(BATCH_SIZES)


def test_what_is_said_of_settings() -> None:
    assert str(one(8)) == "workers 1, threads 1, batch size 8: 100 requests/s, p50 5.0 ms, p99 10.0 ms"
    assert str(one(1, failure="503 busy")) == "workers 1, threads 1, batch size 1: failed: 503 busy"


@pytest.mark.slow
def test_a_real_server_is_measured(exported_images: Path) -> None:
    chosen = tried(workers=1, threads=1, batch_size=4, max_batch_delay_ms=1)

    best, tuning = tune_archive(open_trusted(exported_images, "onnx"), chosen, 60_000, seconds=1)

    assert best == chosen
    assert tuning["measured"] == [tuning["chosen"]]
    found = tuning["chosen"]
    assert (found["clients"], found["failure"]) == (8, "")
    assert found["requests_per_second"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    failed = tune.measure(tmp_path / "none.mar", Settings(), [], 0.1)

    assert "there is no archive" in failed.failure
    assert "\n" not in failed.failure
