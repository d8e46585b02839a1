"""What Prometheus reads: that it is by its conventions, of bounded size, and what each request adds."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from dataclasses import replace

import aiohttp
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from trainyard.artifacts.drift import DriftReference
from trainyard.gateway.access_log import Entry
from trainyard.gateway.exporter import Exporter
from trainyard.gateway.health import Health
from trainyard.gateway.metrics import CLASSES, FEWEST, Metrics, Watched
from trainyard.http.batch import Facts
from trainyard.torchserve.ports import listen, url_of

RNG = np.random.default_rng(0)
HEALTH = Health(frozenset({"m"}))


def watched(classes: int = 3, has_reference: bool = True) -> Watched:
    probabilities = RNG.dirichlet(np.ones(classes), 400).astype(np.float32)
    probabilities[:, -1] += 0.5  # the last class is the most frequent one
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    measures = {"length": RNG.integers(5, 20, 400), "unknown": np.zeros(400)}
    reference = DriftReference.of(probabilities, measures) if has_reference else None
    return Watched("m", "1.0", [f"c{i}" for i in range(classes)], reference, {"bundle": "b1", "format": "onnx"})


def told(items: int = 1, label: int = 0, batch: int | None = None) -> Facts:
    return Facts(items, 2.0, 3.0, batch, [label] * items, [0.5] * items,
                 {"length": [90.0] * items, "unknown": [0.25] * items})  # fmt: skip


def read(metrics: Metrics) -> dict[str, float]:
    """Each sample but those of buckets and of the process, without its braces: ``name model=m status=200``."""
    return {
        " ".join([sample.name, *(f"{key}={sample.labels[key]}" for key in sorted(sample.labels) if key != "version")]):
        sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if not sample.name.startswith("process_") and "le" not in sample.labels
    }  # fmt: skip


def test_a_request_is_counted_with_its_times_and_answers() -> None:
    metrics = Metrics([watched()], HEALTH)
    entry = Entry("id", "/", "m", status=200, ms=7.0, queue_ms=1.0)

    with metrics.answering("m"):
        assert read(metrics)["trainyard_requests_in_flight model=m"] == 1
    metrics.count(replace(entry, facts=told(2, label=1, batch=5)))
    metrics.count(replace(entry, facts=told(1, label=2)))

    found = read(metrics)
    assert found["trainyard_requests_total model=m reason= status=200"] == 2
    assert found["trainyard_requests_in_flight model=m"] == 0
    for name, seconds in (("request", 0.014), ("queue", 0.002), ("preprocess", 0.004), ("model", 0.006)):
        assert found[f"trainyard_{name}_duration_seconds_sum model=m"] == pytest.approx(seconds)
    assert found["trainyard_batch_items_count model=m"] == 1, "a batch is told of once"
    assert [found[f"trainyard_predictions_total label=c{i} model=m"] for i in range(3)] == [0, 2, 1]
    assert found["trainyard_deployed_info bundle=b1 format=onnx model=m"] == 1
    assert not any("drift" in name for name in found), "two items are no reason to say anything"


def test_what_fails_has_a_reason_and_what_names_no_model_is_counted_too() -> None:
    metrics = Metrics([watched()], HEALTH)

    metrics.count(Entry("id", "/", "m", status=503, code="overload"))
    metrics.count(Entry("id", "/nobody", None, status=404, code="not_found"))

    found = read(metrics)
    assert found["trainyard_requests_total model=m reason=overload status=503"] == 1
    assert found["trainyard_requests_total model= reason=not_found status=404"] == 1
    assert found["trainyard_request_duration_seconds_count model=m"] == 1


def test_drift_and_the_estimated_accuracy_are_of_the_newest_items() -> None:
    model = watched()
    assert model.reference is not None
    metrics = Metrics([model], HEALTH)
    entry = Entry("id", "/", "m", status=200)

    for _ in range(FEWEST // 100):
        metrics.count(replace(entry, facts=told(100)))
    found = read(metrics)
    for of in ("label", "confidence", "length", "unknown"):
        assert found[f"trainyard_drift_psi model=m of={of}"] > 0.25
    assert found["trainyard_accuracy_estimated_ratio model=m"] == pytest.approx(0.5)
    assert found["trainyard_accuracy_expected_ratio model=m"] == pytest.approx(model.reference.mean_confidence)
    assert found["trainyard_unknown_tokens_ratio model=m"] == pytest.approx(0.25)


def test_a_model_without_a_reference_is_served_without_drift() -> None:
    metrics = Metrics([watched(has_reference=False)], HEALTH)

    metrics.count(Entry("id", "/", "m", status=200, facts=told(FEWEST)))

    found = read(metrics)
    assert found["trainyard_accuracy_estimated_ratio model=m"] == 0.5
    assert not any("drift" in name or "expected" in name for name in found)


def test_a_thousand_classes_have_fifty_series_and_one_for_the_others() -> None:
    model = watched(1000)
    metrics = Metrics([model], HEALTH)

    for label in (999, 7, 8):
        metrics.count(Entry("id", "/", "m", status=200, facts=told(label=label)))

    found = {name: value for name, value in read(metrics).items() if name.startswith("trainyard_predictions_total")}
    assert len(found) == CLASSES + 1
    assert found["trainyard_predictions_total label=c999 model=m"] == 1
    assert sum(found.values()) == 3


def test_workers_and_readiness_are_as_the_health_knows_them() -> None:
    health = Health(frozenset({"m"}))
    health.restarts["m"] += 2

    found = read(Metrics([watched()], health))

    assert found["trainyard_worker_restarts_total model=m"] == 2
    assert found["trainyard_model_ready model=m"] == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool; .ci/run installs it")
def test_prometheus_finds_no_fault_with_names_and_units() -> None:
    metrics = Metrics([watched()], HEALTH)
    metrics.count(Entry("id", "/", "m", status=200, facts=told(FEWEST, batch=1)))

    checked = subprocess.run(["promtool", "check", "metrics"], input=metrics.text(), capture_output=True, check=False)

    assert (checked.returncode, checked.stderr) == (0, b"")


def test_ours_and_torchserves_are_told_each_at_a_path() -> None:
    async def main() -> None:
        listener, its = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
        url = url_of(its)
        exporter = Exporter(Metrics([watched()], HEALTH), lambda: url)
        await exporter.open(listener)

        async def theirs(_: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
            return aiohttp.web.Response(text="Requests2XX 1.0\n")

        inner = aiohttp.web.Server(theirs)
        server = await asyncio.get_running_loop().create_server(inner, sock=its)
        async with aiohttp.ClientSession(url_of(listener)) as session:
            async with session.get("/metrics") as response:
                assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert "trainyard_model_ready" in await response.text()
            async with session.get("/torchserve/metrics") as response:
                assert await response.text() == "Requests2XX 1.0\n"
            server.close()
            await inner.shutdown()
            async with session.get("/torchserve/metrics") as response:
                assert (response.status, "TorchServe" in await response.text()) == (503, True)
        await exporter.close()

    asyncio.run(main())
