"""Two nodes for real: two network namespaces with nothing in common but a cable. They need root and iproute2."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.213.0.1", "10.213.0.2")
WORDS = ["configs/digits_resnet.yaml", "data.limit=200", "data.batch_size=16", "trainer.max_epochs=2",
         "trainer.threads=1", "trainer.log_every=1", "optim.lr=0.02"]  # fmt: skip
MEET_SECONDS = 20

pytestmark = pytest.mark.slow


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Nodes:
    """Two namespaces, joined by a veth pair."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"ty{os.getpid()}{end}" for end in "ab"]
        self.links = [f"ty{os.getpid()}v{end}" for end in "ab"]
        self.started: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.links[0], "netns", self.names[0], "type", "veth",
           "peer", "name", self.links[1], "netns", self.names[1])  # fmt: skip
        for name, link, address in zip(self.names, self.links, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", link, "up")

    def remove(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        for name in self.names:  # and with them their ends of the cable
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def start(self, rank: int, words: list[str]) -> subprocess.Popen[str]:
        """Starts scripts/train.sh on a node, with folders of its own."""
        own = self.folder / f"node{rank}"
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[rank], "scripts/train.sh", *words, f"out={own}/runs",
             f"data.cache={own}/cache"],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "TRAINYARD_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "NNODES": "2", "NPROC": "1",
                 "NODE_RANK": str(rank), "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29512",
                 "GLOO_SOCKET_IFNAME": self.links[rank], "MEET_SECONDS": str(MEET_SECONDS)},
        )  # fmt: skip
        self.started.append(process)
        return process

    def train(self, *words: list[str]) -> list[tuple[int, str, str]]:
        """Runs both nodes, each with its words; returns their exit codes and what they printed."""
        started = [self.start(rank, own) for rank, own in enumerate(words)]
        ended = [node.communicate(timeout=400) for node in started]
        return [(node.returncode, *printed) for node, printed in zip(started, ended, strict=True)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    # A CI where these tests can't run must say so.
    if os.geteuid() != 0 and os.environ.get("CI") != "true":
        pytest.skip("network namespaces need root")
    nodes = Nodes(tmp_path)
    try:
        nodes.build()
        yield nodes
    finally:
        if shutil.which("ip"):
            nodes.remove()


def weights(run: Path) -> str:
    return hashlib.sha256((run / "bundle" / "model.safetensors").read_bytes()).hexdigest()


def test_two_nodes_train_what_two_processes_of_one_node_train(nodes: Nodes, tmp_path: Path) -> None:
    (code, stdout, stderr), (other_code, other_stdout, other_stderr) = nodes.train(WORDS, WORDS)
    assert (code, other_code) == (0, 0), stderr + other_stderr
    run = Path(stdout.splitlines()[-1])
    assert json.loads((run / "metrics.json").read_text())["train"]["world_size"] == 2
    assert other_stdout == ""
    assert not (tmp_path / "node1" / "runs").exists(), "rank 0 alone writes"

    one_node = subprocess.run(
        [sys.executable, "-m", "trainyard", "train", *WORDS, f"out={tmp_path}/one", f"data.cache={tmp_path}/cache"],
        cwd=ROOT, text=True, capture_output=True, check=True, env={**os.environ, "NPROC": "2", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert weights(Path(one_node.stdout.splitlines()[-1])) == weights(run)


def test_a_stopped_job_goes_on_although_one_node_alone_has_the_checkpoint(nodes: Nodes, tmp_path: Path) -> None:
    words = [*WORDS, "trainer.resume=auto"]
    undisturbed = nodes.train(words, words)
    run = Path(undisturbed[0][1].splitlines()[-1])
    expected = weights(run)
    shutil.rmtree(run.parent)

    started = [nodes.start(rank, words) for rank in (0, 1)]
    assert started[0].stderr is not None
    next(line for line in started[0].stderr if "step 3/" in line)
    started[1].terminate()
    for node in started:
        node.communicate(timeout=400)
    assert [node.returncode for node in started] == [143, 143], "the signal to one node stops both at the same step"

    (code, stdout, stderr), (other_code, _, other_stderr) = nodes.train(words, words)
    assert (code, other_code) == (0, 0), stderr + other_stderr
    assert "going on after epoch" in stderr
    assert weights(Path(stdout.splitlines()[-1])) == expected


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_with_a_wrong_config_ends_both(nodes: Nodes, rank: int) -> None:
    words = [WORDS, WORDS]
    words[rank] = [*WORDS, "optim.learning_rate=1"]
    begin = time.monotonic()

    ended = nodes.train(*words)

    assert time.monotonic() - begin < MEET_SECONDS + 100
    assert ended[rank][0] == 2
    assert "did you mean" in ended[rank][2]
    assert ended[1 - rank][0] == 1
    assert "the nodes can't meet" in ended[1 - rank][2]
    assert "Traceback" not in ended[0][2] + ended[1][2]


def test_nodes_with_different_configs_are_told_so(nodes: Nodes) -> None:
    ended = nodes.train(WORDS, [*WORDS, "trainer.max_epochs=3"])

    assert ended[0][0] == 2
    assert "differ in trainer.max_epochs; start every node with the same config" in ended[0][2]
    assert ended[1][0] in (1, 2), "1 where the other node's end was noticed first"
    assert "Traceback" not in ended[0][2] + ended[1][2]


def test_a_missing_address_is_one_sentence() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MASTER_ADDR"}
    done = subprocess.run(
        ["scripts/train.sh", *WORDS], cwd=ROOT, text=True, capture_output=True, check=False,
        env={**environment, "TRAINYARD_PYTHON": sys.executable, "NNODES": "2", "NPROC": "1"},
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.startswith("trainyard: NNODES is above 1, so MASTER_ADDR must name the first node's address: ")
    assert done.stderr.count("\n") == 1
