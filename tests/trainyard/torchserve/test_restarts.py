"""How often TorchServe is started again, and what is told to probes meanwhile; with a backend that ends at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trainyard.artifacts.export_record import open_trusted
from trainyard.gateway.health import Health, Phase
from trainyard.torchserve.process import BackendError
from trainyard.torchserve.server import MOST_FAILURES, Options, Server
from trainyard.torchserve.settings import Settings
from trainyard.torchserve.store import Served


class Ending:
    """A backend that starts without an error, and ends as soon as it is watched."""

    key_file = Path("key_file.json")

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.phases: list[Phase] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def until_loaded(self) -> None:
        if self.calls.count("start") == 3:
            raise BackendError("a worker can't load")

    async def watch(self, health: Health) -> None:
        self.phases.append(health.phase)
        raise BackendError(f"end {self.calls.count('start')}")

    async def stop(self) -> None:
        self.calls.append("stop")


def test_it_is_started_again_some_times_and_not_for_ever(
    bare_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("default 12345678")
    backend = Ending()
    model = Served("m", "1.0", Settings(format="eager"), open_trusted(bare_run, "eager"), [])
    server = Server(Options([]), [model], backend, token)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=f"end {MOST_FAILURES}"):
        asyncio.run(server._serve("http://localhost", "http://localhost"))
    assert backend.calls.count("start") == MOST_FAILURES
    assert backend.calls[:3] == ["start", "stop", "start"], "each ended before the next"
    assert set(backend.phases) == {Phase.SERVING}
    said = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert "a worker can't load; it is started again" in said
