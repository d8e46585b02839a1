r"""Serving with TorchServe: the skew of its answers, the CPU time of a request, and requests/s of the formats.

    python benchmarks/serving.py --digits RUN --tickets RUN --cifar10 RUN --resnet18 RUN --minilm RUN \
        --torch-free PYTHON --cores 2

RUN are runs with exports, of configs/digits_resnet.yaml, tickets_bert.yaml, cifar10_resnet20.yaml,
cifar10_resnet18_224.yaml and sst2_bert.yaml, whose data lies where it was. PYTHON is the interpreter of an environment
without torch: `python -m venv --without-pip DIR`, then `pip --python DIR/bin/python install --require-hashes --no-deps
-r requirements-serve.lock`. Leave one out to skip it.

Three questions. Are the answers over HTTP, batched, those that `trainyard evaluate --format` scores (the whole test
splits of digits and tickets, 1,000 images of CIFAR-10; bars: every label, probabilities within 1e-5)? How much CPU time
do all processes of a server (gateway, Java, workers) take for a request, against the predictor in process with the
same images and batches (bar: 1.15 times)? And how many requests/s does the best format answer, against `torchscript`
(bars: 3 times for ResNet-18 at 224, 1.8 for MiniLM)? The load comes from a process of its own, whose CPU time isn't
counted, over `CONNECTIONS` connections that each wait for an answer before the next request: enough to fill the batches
of all workers. All servers are up at once and take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROOT, Figure, folder, median, median_ratio, parser, report, start, take_turns

if TYPE_CHECKING:
    from trainyard.artifacts.export_record import FormatName
    from trainyard.inference.predictor import Predictor
    from trainyard.preprocess.base import Item
    from trainyard.torchserve.running import Running

CONNECTIONS = 32
SECONDS, QUICK_SECONDS = 10.0, 1.0
"""Of a turn."""
ITEMS = 256
"""Items that are sent in turn."""
MODEL = "model"
BASE: FormatName = "torchscript"
INT8: FormatName = "onnx-int8"
SKEW_IMAGES = "data.limit=1000"
MOST_DIFFERENCE, MOST_CPU, LEAST_RESNET18, LEAST_MINILM = 1e-5, 1.15, 3.0, 1.8
LOAD = Path(__file__).with_name("load.py")


@dataclass(frozen=True)
class Load:
    """Requests in files: the path that they go to, and what they are."""

    folder: Path
    path: str
    content_type: str


def main(words: list[str] | None = None) -> None:
    """Measures what the options name."""
    options = parser(__doc__ or "", rounds=5)
    for name in ("digits", "tickets", "cifar10", "resnet18", "minilm"):
        options.add_argument(f"--{name}", type=folder, metavar="RUN", help=f"the run of {name}")
    options.add_argument("--torch-free", metavar="PYTHON", help="interpreter of an environment without torch")
    arguments = start(options, words, ["aiohttp", "httpx2", "onnxruntime", "psutil", "ts"])
    figures = list(measure(arguments))
    if not figures:
        options.error("give a RUN, as in --digits RUN")
    report(figures, arguments)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """The figures of all runs that were given."""
    for name in ("digits", "tickets", "cifar10"):
        if run := getattr(arguments, name):
            yield from measure_answers(name, Path(run), [SKEW_IMAGES] if name == "cifar10" else [])
    if arguments.resnet18:
        yield from measure_cpu("ResNet-18 at 224", Path(arguments.resnet18), arguments)
        yield from measure_rates("ResNet-18 at 224", Path(arguments.resnet18), LEAST_RESNET18, arguments)
    if arguments.minilm:
        yield from measure_rates("MiniLM", Path(arguments.minilm), LEAST_MINILM, arguments)


def measure_answers(name: str, run: Path, overrides: Sequence[str]) -> Iterator[Figure]:
    """What differs from the evaluation."""
    from skew import measure_skew

    from trainyard.torchserve.running import running

    with running([f"{name}={run}"]) as server:
        skew = measure_skew(server, name, run, overrides)
    title = f"{name}, {skew.format}, {skew.examples:,} answers"
    yield Figure(f"{title}: labels that differ", skew.labels, "", at_most=0)
    yield Figure(f"{title}: largest difference of a probability", skew.probability, "", at_most=MOST_DIFFERENCE)


def measure_cpu(title: str, run: Path, arguments: argparse.Namespace) -> Iterator[Figure]:
    """CPU time of a request to a server, and of an item in this process."""
    from trainyard.inference.predictor import Predictor
    from trainyard.torchserve.running import running
    from trainyard.torchserve.settings import Settings

    items, settings = items_of(run), Settings().for_machine(INT8)
    predictor = Predictor(run, INT8, batch_size=settings.batch_size, threads=settings.threads)
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    with running([f"{MODEL}={run}"], ["--format", INT8]) as server, written(items) as load:
        cases = {"CPU seconds of a request": partial(cpu_of_request, server, load, seconds),
                 "of an item in process": partial(cpu_of_item, predictor, items, seconds)}  # fmt: skip
        served, in_process = take_turns(cases, arguments.rounds).values()
    title = f"{title}, {INT8}: CPU time"
    yield Figure(f"{title} of an item by the predictor in process", 1000 * median(in_process), "ms")
    yield Figure(f"{title} of a request, all processes of the server", 1000 * median(served), "ms")
    yield Figure(f"{title}, server / in process", median_ratio(served, in_process), "", at_most=MOST_CPU)


def measure_rates(title: str, run: Path, least: float, arguments: argparse.Namespace) -> Iterator[Figure]:
    """Requests/s of the formats, and without torch; ``least`` is the bar of the best against ``torchscript``."""
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    with ExitStack() as stack:
        load = stack.enter_context(written(items_of(run)))
        cases = {
            name: partial(rate, server, load, seconds)
            for name, server in servers(stack, run, arguments.torch_free).items()
        }
        turns = take_turns(cases, arguments.rounds)
    for name, rates in turns.items():
        yield Figure(f"{title}: {name}", median(rates), "requests/s")
    base = turns.pop(BASE)
    best = max(turns, key=lambda name: median(turns[name]))
    for name, rates in turns.items():
        bar = least if name == best else None
        yield Figure(f"{title}: {name} / {BASE}", median_ratio(rates, base), "", at_least=bar)


def servers(stack: ExitStack, run: Path, torch_free: str | None) -> dict[str, Running]:
    """A server of ``torchscript``, of what the export recommends, and of ``onnx-int8`` with and without torch."""
    from trainyard.artifacts.export_record import open_trusted
    from trainyard.inference.selection import pick_format
    from trainyard.torchserve.running import running

    models = [f"{MODEL}={run}"]
    formats = dict.fromkeys((BASE, pick_format(open_trusted(run)), INT8))
    named: dict[str, Running] = {
        format: stack.enter_context(running(models, ["--format", format])) for format in formats
    }
    if torch_free:
        source = {"PYTHONPATH": str(ROOT / "src")}
        server = running(models, ["--format", INT8], source, python=torch_free)
        named[f"{INT8} without torch"] = stack.enter_context(server)
    return named


def items_of(run: Path) -> list[Item]:
    """Items of the run's own test split, images as their bytes."""
    from trainyard.artifacts.bundle import Bundle
    from trainyard.evaluation.evaluate import data_config, records_to_score

    facts = Bundle.open(run).facts
    items = records_to_score(facts, data_config(facts, []), []).items[:ITEMS]
    return [item.read_bytes() if isinstance(item, Path) else item for item in items]


@contextmanager
def written(items: Sequence[Item]) -> Iterator[Load]:
    """The bodies of requests for these items, one each, as the client would make them."""
    from trainyard.client.messages import split
    from trainyard.http.request_types import TOP_K

    requests = [next(split([item], TOP_K)).request(MODEL, None) for item in items]
    with tempfile.TemporaryDirectory() as folder:
        for number, request in enumerate(requests):
            assert request.body is not None
            (Path(folder) / f"{number:04}").write_bytes(request.body)
        yield Load(Path(folder), requests[0].path, requests[0].content_type)


def send(server: Running, load: Load, seconds: float) -> tuple[int, float]:
    """Loads a server from another process; gives the requests that were answered, and the seconds.

    Raises:
        SystemExit: one wasn't answered; the process has said it.
    """
    url = f"{server.inference_url}/{load.path}"
    words = [url, server.token_file, load.content_type, load.folder, CONNECTIONS, seconds]
    done = subprocess.run([sys.executable, LOAD, *map(str, words)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    told = json.loads(done.stdout)
    return told["requests"], told["seconds"]


def rate(server: Running, load: Load, seconds: float) -> float:
    """Requests/s."""
    requests, took = send(server, load, seconds)
    return requests / took


def cpu_of_request(server: Running, load: Load, seconds: float) -> float:
    """CPU seconds of a request, over all processes of the server."""
    before = cpu_seconds(server.pid)
    requests, _ = send(server, load, seconds)
    return (cpu_seconds(server.pid) - before) / requests


def cpu_seconds(pid: int) -> float:
    """What a process and all below it have used so far."""
    import psutil

    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def cpu_of_item(predictor: Predictor, items: Sequence[Item], seconds: float) -> float:
    """CPU seconds of an item in this process, decoding included."""
    began, end, count = time.process_time(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        predictor.predict(items)
        count += len(items)
    return (time.process_time() - began) / count


if __name__ == "__main__":
    main()
