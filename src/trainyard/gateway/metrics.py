"""What Prometheus is told: requests and their times, workers, answers, and how far these are from the test split.

Names and units are by Prometheus' conventions; ``docs/monitoring.md`` lists them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from trainyard.artifacts.drift import DriftReference
from trainyard.gateway.access_log import Entry
from trainyard.gateway.health import Health

MODEL = ("model", "version")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
CLASSES = 50
"""Classes that are counted each by itself; the rest is ``OTHER``."""
OTHER = "other"
WINDOW = 1000
"""The newest items of a model, which are compared with its reference."""
UNKNOWN = "unknown"
"""What the preprocessor of texts calls the share of tokens that the vocabulary doesn't know."""
FEWEST = 200
"""Items before anything is said of them: fewer differ by chance."""


@dataclass(frozen=True)
class Watched:
    """A model that is watched.

    Attributes:
        name: By which it is asked.
        version: Its version.
        labels: Its classes.
        reference: What its traffic is compared with, if its bundle has that.
        deployed: What answers: digests and format, by their names.
    """

    name: str
    version: str
    labels: Sequence[str]
    reference: DriftReference | None
    deployed: Mapping[str, str]


class Metrics:
    """All that is counted.

    Args:
        models: What is served.
        health: Knows which models are ready, and whose workers ended.
    """

    def __init__(self, models: Sequence[Watched], health: Health) -> None:
        # Else each counter has a second series, the time of its start.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        requests = Counter(
            "trainyard_requests",
            "Answered requests, those of probes left out. Status 499: the client left before.",
            (*MODEL, "status", "reason"),
            registry=self._registry,
        )
        self._requests = cache(requests.labels)  # finding a series takes longer than adding to it
        families = _Families(self._registry)
        self._traffic = {model.name: _Traffic(model, families) for model in models}
        self._registry.register(_State(health, list(self._traffic.values())))
        ProcessCollector(registry=self._registry)

    def answering(self, model: str) -> AbstractContextManager[object]:
        """Within it, the model has one more request."""
        return self._traffic[model].in_flight.track_inprogress()

    def version(self, model: str) -> str | None:
        """The version of a model that is served; none of what isn't one."""
        return traffic.model.version if (traffic := self._traffic.get(model)) else None

    def count(self, entry: Entry) -> None:
        """Counts a request that was answered."""
        traffic = self._traffic.get(entry.model or "")
        version = traffic.model.version if traffic else ""
        self._requests(entry.model or "", version, str(entry.status), entry.code or "").inc()
        if traffic:
            traffic.add(entry)

    def text(self) -> bytes:
        """All of them as Prometheus reads it."""
        return generate_latest(self._registry)


class _Families:
    """The metrics that requests of a model add to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, about: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"trainyard_{name}", about, MODEL, buckets=buckets, registry=registry)

        self.duration = histogram("request_duration_seconds", "Time from a request's head to its answer.", SECONDS)
        self.queue = histogram("queue_duration_seconds", "Of that, waiting for a worker and a batch.", SECONDS)
        self.preprocess = histogram("preprocess_duration_seconds", "Of that, making the model's inputs.", SECONDS)
        self.model = histogram("model_duration_seconds", "Of that, the model's call, with all its batch.", SECONDS)
        self.batch = histogram("batch_items", "Items that went through the model together.", ITEMS)
        self.confidence = histogram("confidence_ratio", "Calibrated probabilities of the answers.", CONFIDENCES)
        self.in_flight = Gauge(
            "trainyard_requests_in_flight", "Requests that a model has been given.", ("model",), registry=registry
        )
        self.predictions = Counter(
            "trainyard_predictions", f"Answers by class: {CLASSES} and {OTHER}.", (*MODEL, "label"), registry=registry
        )


class _Traffic:
    """A model's: its series, found once, and its newest items."""

    def __init__(self, model: Watched, families: _Families) -> None:
        self.model = model
        self.at = (model.name, model.version)
        self._duration, self._queue = families.duration.labels(*self.at), families.queue.labels(*self.at)
        self._preprocess, self._model = families.preprocess.labels(*self.at), families.model.labels(*self.at)
        self._batch, self._confidence = families.batch.labels(*self.at), families.confidence.labels(*self.at)
        self.in_flight = families.in_flight.labels(model.name)
        shown = set(model.reference.frequent(CLASSES) if model.reference else range(CLASSES))
        self._predictions = [
            families.predictions.labels(*self.at, label if i in shown else OTHER)
            for i, label in enumerate(model.labels)
        ]
        self._labels: deque[int] = deque(maxlen=WINDOW)
        self._confidences: deque[float] = deque(maxlen=WINDOW)
        names = model.reference.measures if model.reference else ()
        self._measures: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in names}

    def add(self, entry: Entry) -> None:
        """Counts a request."""
        self._duration.observe(entry.ms / 1000)
        if (facts := entry.facts) is None:
            return
        self._queue.observe((entry.queue_ms or 0.0) / 1000)
        self._preprocess.observe(facts.preprocess_ms / 1000)
        self._model.observe(facts.model_ms / 1000)
        if facts.batch:
            self._batch.observe(facts.batch)
        for label in facts.labels:
            self._predictions[label].inc()
        for confidence in facts.confidences:
            self._confidence.observe(confidence)
        self._labels.extend(facts.labels)
        self._confidences.extend(facts.confidences)
        for name, newest in self._measures.items():
            newest.extend(facts.measures.get(name, ()))

    def drift(self) -> Iterator[tuple[str, float]]:
        """Each thing that is compared with the reference, and how far it is from that; not yet of few items."""
        reference = self.model.reference
        if reference is None or len(self._labels) < FEWEST:
            return
        yield "label", reference.labels_psi(list(self._labels))
        yield "confidence", reference.confidence.psi(list(self._confidences))
        for name, newest in self._measures.items():
            if len(newest) >= FEWEST:
                yield name, reference.measures[name].psi(list(newest))

    def accuracy(self) -> float | None:
        """The accuracy that the newest items' probabilities promise; not yet of few."""
        return fmean(self._confidences) if len(self._confidences) >= FEWEST else None

    def unknown(self) -> float | None:
        """The share of tokens that the vocabulary doesn't know in the newest texts; nothing where it knows all."""
        return fmean(newest) if (newest := self._measures.get(UNKNOWN)) else None


class _State(Collector):
    """What isn't counted, but looked up when Prometheus asks."""

    def __init__(self, health: Health, traffic: Sequence[_Traffic]) -> None:
        self._health, self._traffic = health, traffic

    def collect(self) -> Iterator[Metric]:
        """It, as it is now."""
        restarts = CounterMetricFamily(
            "trainyard_worker_restarts", "Workers that ended, and were started again.", labels=("model",)
        )
        deployed = InfoMetricFamily("trainyard_deployed", "What answers, by digests and format.", labels=MODEL)
        ready = _gauge("model_ready", "Whether the model can be asked.", ("model",))
        drift = _gauge("drift_psi", "How far the newest items are from the test split.", (*MODEL, "of"))
        accuracy = _gauge("accuracy_estimated_ratio", "Accuracy that the newest items' probabilities promise.", MODEL)
        expected = _gauge("accuracy_expected_ratio", "The same of the test split.", MODEL)
        unknown = _gauge("unknown_tokens_ratio", "Tokens that the vocabulary doesn't know, of newest texts.", MODEL)
        for one in self._traffic:
            restarts.add_metric([one.model.name], self._health.restarts[one.model.name])
            deployed.add_metric(one.at, dict(one.model.deployed))
            ready.add_metric([one.model.name], self._health.is_ready(one.model.name))
            for of, value in one.drift():
                drift.add_metric((*one.at, of), value)
            for family, found in ((accuracy, one.accuracy()), (unknown, one.unknown())):
                if found is not None:
                    family.add_metric(one.at, found)
            if one.model.reference:
                expected.add_metric(one.at, one.model.reference.mean_confidence)
        yield from (restarts, deployed, ready, drift, accuracy, expected, unknown)


def _gauge(name: str, about: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trainyard_{name}", about, labels=labels)
