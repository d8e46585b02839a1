"""The rules, the dashboard and the metrics of ``serving/monitoring`` against Prometheus, which must be installed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from trainyard.artifacts.bundle import Bundle
from trainyard.client.access import read_token
from trainyard.evaluation.evaluate import data_config, records_to_score
from trainyard.torchserve.ports import listen
from trainyard.torchserve.running import Running, running

MONITORING = Path(__file__).parents[3] / "serving" / "monitoring"
GENEROUS = 120.0
MINUTE = 500
"""Milliseconds that stand for a minute of the rules here."""

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no Prometheus; .ci/run installs it")


@pytest.mark.parametrize("words", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_finds_no_fault(words: tuple[str, ...]) -> None:
    checked = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **query: str) -> object:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=GENEROUS) as response:
            return json.load(response)["data"]

    def firing(self) -> set[str]:
        """What fires, as in ``TrainyardDrift label``."""
        alerts = self.get("alerts")["alerts"]  # type: ignore[index]
        labels = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        return {" ".join(filter(None, [one["alertname"], one.get("of")])) for one in labels}

    def finds(self, query: str) -> bool:
        return bool(self.get("query", query=query)["result"])  # type: ignore[index]


@pytest.fixture
def up(exported_images: Path, exported_texts: Path) -> Iterator[Running]:
    options = ["--workers", "1", "--request-seconds", "2"]
    with running([f"digits={exported_images}", f"tickets={exported_texts}"], options) as server:
        yield server


@pytest.fixture
def prometheus(up: Running, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus as it is shipped, but that a minute of the rules is ``MINUTE``."""
    rules = (MONITORING / "alerts.yml").read_text()
    scaled = re.sub(r"(for: |\[)(\d+)m", lambda found: f"{found[1]}{int(found[2]) * MINUTE}ms", rules)
    (tmp_path / "alerts.yml").write_text(scaled)
    config = (MONITORING / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:9464", up.facts["metrics"].removeprefix("http://")).replace("15s", "200ms")
    (tmp_path / "prometheus.yml").write_text(config)
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    command = ["prometheus", f"--web.listen-address=127.0.0.1:{port}", "--config.file=prometheus.yml"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, "--storage.tsdb.path=data"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")
        until(lambda: process.poll() is None and answers(lambda: found.finds("trainyard_model_ready == 1")))
        yield found
    finally:
        process.terminate()
        process.wait(GENEROUS)


def answers(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:
        return False


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.1)


class Traffic:
    """Asks a model about items, several at once, again and again; what they are may change meanwhile."""

    def __init__(self, server: Running, model: str, items: Sequence[object]) -> None:
        self.items = items
        self._url, self._token = f"{server.inference_url}/predictions/{model}", server.token
        self._kind = "text" if isinstance(items[0], str) else "image"
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(4 * i,)) for i in range(4)]

    def _run(self, position: int) -> None:
        while not self._end.wait(0.02):
            items = [self.items[(position + i) % len(self.items)] for i in range(16)]
            position += 16
            sent = [one if isinstance(one, str) else base64.b64encode(bytes(one)).decode() for one in items]  # type: ignore[call-overload]
            body = json.dumps({"instances": [{self._kind: one} for one in sent]}).encode()
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            try:
                with urllib.request.urlopen(urllib.request.Request(self._url, body, headers), timeout=GENEROUS):
                    pass
            except urllib.error.HTTPError as error:
                error.close()

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def items_of_the_test_split(run: Path) -> Sequence[object]:
    facts = Bundle.open(run).facts
    return records_to_score(facts, data_config(facts, []), []).items


def black() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def stop_workers(server: Running) -> None:
    """Stops whatever worker of the digits is ready; it won't answer any more, and doesn't end by itself."""
    request = urllib.request.Request(f"{server.facts['management']}/models/digits")
    token = read_token(Path(server.facts["management_token_file"]), "management")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=GENEROUS) as response:
        [version] = json.load(response)
    for worker in version["workers"]:
        if worker["status"] == "READY":
            with contextlib.suppress(ProcessLookupError):  # it ended, and TorchServe hasn't seen that yet
                os.kill(worker["pid"], signal.SIGSTOP)


@pytest.mark.slow
def test_what_goes_wrong_fires_its_alert_which_clears(
    up: Running, prometheus: Prometheus, exported_images: Path, exported_texts: Path
) -> None:
    usual = items_of_the_test_split(exported_images)
    with Traffic(up, "digits", usual) as traffic, Traffic(up, "tickets", items_of_the_test_split(exported_texts)):
        until(lambda: prometheus.finds("trainyard_drift_psi"))
        until(lambda: not prometheus.firing())

        traffic.items = [black()]
        drift = {f"TrainyardDrift {of}" for of in ("brightness", "confidence", "label")}
        until(lambda: drift <= prometheus.firing())
        traffic.items = usual
        until(lambda: not prometheus.firing())

        faults = {"TrainyardStuck", "TrainyardErrors", "TrainyardWorkerRestarted"}
        seen: set[str] = set()

        def all_seen() -> bool:
            stop_workers(up)
            seen.update(prometheus.firing())
            return faults <= seen

        until(all_seen)
        panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        queries = [query.replace("$model", ".*").replace("$__rate_interval", "30s") for query in queries]
        assert [query for query in queries if not prometheus.finds(query)] == []
        assert prometheus.finds("ts_inference_requests_total"), "TorchServe's own"

        until(lambda: not prometheus.firing())
