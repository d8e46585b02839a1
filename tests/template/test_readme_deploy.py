"""Every command of the README's section "Deploy" is run, in its order, as someone new would do it.

Only the port changes, since 8080 may be taken, and --tune is given what it would try for minutes. What the page on the
container tells to run is run by scripts/container_test.sh, which tests/test_container.py calls.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "README.md").read_text().partition("\n## Deploy\n")[2].partition("\n## ")[0]
COMMANDS = [
    command
    for block in re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
    for line in block.splitlines()
    if (command := line.partition("#")[0].strip())
]
CONFIGS = ("digits_resnet", "tickets_bert")
GENEROUS = 240.0
LITTLE_TO_TRY = "--workers 1 --threads 1 --batch-size 4 --max-batch-delay 0 --p99 60000"


def bash(command: str, folder: Path) -> str:
    """What a command prints on stdout; it must succeed, as its exit code and not only its text says."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=surroundings(), capture_output=True, text=True,
                          timeout=GENEROUS, check=False)  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def surroundings() -> dict[str, str]:
    """Those in which our command is found, as in an environment that is activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


class Terminal:
    """The one in which a server is in the foreground."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.said = ""
        self._server: subprocess.Popen[bytes] | None = None

    def serve(self, command: str) -> None:
        """Ends the server that is there, and starts another; comes back when it is ready."""
        self.ctrl_c()
        log = self.folder / "serve.log"
        with log.open("wb") as stderr:
            words = ["bash", "-c", f"exec {command} --port {self.port}"]
            self._server = subprocess.Popen(words, cwd=self.folder, env=surroundings(), stderr=stderr)
        end = time.monotonic() + GENEROUS
        # What it says ends with a line for each model, all written at once.
        while not ("ready at" in self.said and self.said.endswith("\n") and "curl" in self.said.splitlines()[-1]):
            self.said = log.read_text()
            assert self._server.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.2)

    def ctrl_c(self) -> None:
        """Ends the server, if there is one, as a person does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            assert self._server.wait(GENEROUS) == 0
        self._server, self.said = None, ""

    def kill(self) -> None:
        """Ends what a failed test left."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(GENEROUS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with what the section takes for granted: two exported runs, and a photo."""
    place = tmp_path_factory.mktemp("deploy")
    command = f"{Path(sys.executable)} -m trainyard"
    quick = f"data.limit=800 data.cache={place}/cache trainer.max_epochs=3 trainer.devices=cpu trainer.loggers=[]"
    for name in CONFIGS:
        bash(f"{command} train {ROOT}/configs/{name}.yaml {quick}", place)
        bash(f"{command} export runs/{name}/latest --formats onnx", place)
    pixels = load_digits().images[7] * 255 / 16
    Image.fromarray(pixels.astype("uint8")).save(place / "photo.jpg", quality=95)
    return place


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    terminal = Terminal(folder, port)
    yield terminal
    terminal.kill()


def test_it_tells_of_all_that_one_does() -> None:
    verbs = [command.split()[1] for command in COMMANDS]
    assert verbs == ["serve", "ready", "predict", "predict", "archive", "archive", "serve"]
    assert not re.search(r"(docker|podman|buildah) (build|run)", SECTION), "then this test must know how to run it"


@pytest.mark.slow
def test_every_command_does_what_it_says(folder: Path, terminal: Terminal) -> None:
    printed: list[str] = []
    for command in COMMANDS:
        here = command.replace(":8080", f":{terminal.port}")
        if command.split()[1] == "serve":
            terminal.serve(here)
            ask_by_curl(terminal)
            run_the_python_example(terminal)
        else:
            printed.append(bash(f"{here} {LITTLE_TO_TRY}" if command.endswith("--tune") else here, folder))
    terminal.ctrl_c()

    assert (folder / "token.json").stat().st_mode & 0o777 == 0o600
    archives = [text.splitlines()[-1] for text in printed if text.strip().endswith(".mar")]
    assert len(archives) == 2
    assert all(Path(folder, path).samefile(folder / COMMANDS[-1].split()[2]) for path in archives)


def ask_by_curl(terminal: Terminal) -> None:
    """By the lines that the server shows, with an item in place of theirs."""
    lines = [line.strip() for line in terminal.said.splitlines() if line.strip().startswith("curl ")]
    assert lines
    for line in lines:
        asked = line.replace("@IMAGE", "@photo.jpg").replace("TEXT", "where is my parcel?")
        assert '"probability"' in bash(f"{asked} --silent --fail", terminal.folder)


def run_the_python_example(terminal: Terminal) -> None:
    """Where the server has the model that it asks."""
    [example] = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    if "digits_resnet" in terminal.said:
        program = example.replace(":8080", f":{terminal.port}") + "assert answer.deployed.bundle\n"
        subprocess.run([sys.executable, "-c", program], cwd=terminal.folder, check=True, timeout=GENEROUS)
