"""A run that is killed at bad moments and gone on with ends with the weights of an undisturbed one."""

from __future__ import annotations

import csv
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainyard.artifacts.bundle import Bundle

ROOT = Path(__file__).parents[2]
HOLDING = Path(__file__).parents[1] / "trainyard" / "holding"
EPOCHS, STEPS = 12, 6
SMALL = [
    f"trainer.max_epochs={EPOCHS}",
    "trainer.save_every=2",
    "trainer.threads=1",
    "trainer.log_every=1",
    "optim.ema=0.9",
]
DROPOUT = ["configs/tickets_bert.yaml", "model.vocab_size=500", "data.limit=200"]
BATCH_NORM = ["configs/digits_resnet.yaml", "data.limit=200", "augment.mixup=0.2"]
ATTEMPTS = 4
"""Some moments last milliseconds: one that was missed is tried again, an epoch later."""


class Running:
    """A training in a process group of its own.

    Args:
        hold: It stands still before a file or folder gets this name.
    """

    def __init__(self, out: Path, words: list[str], processes: int, hold: str = "") -> None:
        self.out, self.lines, self.held = out, list[str](), out / "held"
        self.held.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainyard", "train", *words, *SMALL, f"out={out}/runs", f"data.cache={out}/cache",
             "trainer.resume=auto"],
            cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "NPROC": str(processes), "OMP_NUM_THREADS": "1",
                 "PYTHONPATH": f"{HOLDING}{os.pathsep}{ROOT / 'src'}", "HOLD_BEFORE": hold, "HELD": str(self.held)},
        )  # fmt: skip

    @property
    def run(self) -> Path:
        return (self.out / "runs").glob("*/latest").__next__().resolve()

    def read_until(self, pattern: str) -> None:
        """Reads what it prints up to a line."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if re.search(pattern, line):
                return
        pytest.fail(f"it ended before {pattern}:\n{''.join(self.lines)}")

    def wait_until_held(self) -> None:
        while not self.held.exists():
            assert self.process.poll() is None, "it ended before it was held"
            time.sleep(0.01)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        # The pipe ends when the last process that holds it is gone, torchrun's children among them.
        rest, _ = self.process.communicate(timeout=30)
        self.lines += [] if rest is None else str(rest).splitlines(keepends=True)

    def finish(self) -> Path:
        _, stderr = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, stderr
        return self.run


@dataclass(frozen=True)
class Moment:
    """When to kill, and how to tell afterwards that it was then."""

    wait: Callable[[Running, random.Random], None]
    hit: Callable[[Running], bool]
    hold: str = ""


def last_step(running: Running) -> int | None:
    """The step that the last line tells of; None if it tells of something else."""
    found = re.match(r"epoch \d+/\d+  step (\d+)/", running.lines[-1])
    return int(found[1]) if found else None


def some_steps_on(running: Running, chance: random.Random) -> None:
    running.read_until(r"step \d+/")
    for _ in range(chance.randrange(STEPS)):
        running.read_until(r"step \d+/")
    time.sleep(chance.uniform(0, 0.02))


def writing(name: str, temporary: str) -> Moment:
    """All is written but for the last rename."""
    return Moment(
        wait=lambda running, _: running.wait_until_held(),
        hit=lambda running: any(running.run.glob(temporary)),
        hold=name,
    )


# The best model of an interrupted run is surely saved once, after its first epoch: so that comes first.
MOMENTS = {
    "saving the best": writing("best.ckpt", "checkpoints/.best.ckpt.*.tmp"),
    "mid-epoch": Moment(some_steps_on, lambda running: (last_step(running) or 0) % STEPS != 0),
    "validation, or just after it": Moment(
        wait=lambda running, _: running.read_until(rf"step ({'|'.join(str(n * STEPS) for n in range(1, EPOCHS))})/"),
        hit=lambda running: (last_step(running) or 1) % STEPS == 0,
    ),
    "saving": writing("last.ckpt", "checkpoints/.last.ckpt.*.tmp"),
    "any time": Moment(some_steps_on, lambda _: True),
    "writing the bundle": writing("bundle", ".bundle.*.tmp/model.safetensors"),
}


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def kill_at(moment: Moment, start: Callable[[str], Running], chance: random.Random) -> None:
    for _ in range(ATTEMPTS):
        running = start(moment.hold)
        moment.wait(running, chance)
        running.kill()
        if moment.hit(running):
            return
    pytest.fail(f"the moment was never hit:\n{running.lines}")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "words"), [(1, DROPOUT), (2, DROPOUT), (2, BATCH_NORM)])
def test_killed_at_any_moment_it_ends_with_the_same_weights(processes: int, words: list[str], tmp_path: Path) -> None:
    words = [*words, f"data.batch_size={32 // processes}"]
    undisturbed = Running(tmp_path, words, processes).finish()
    finished = content(undisturbed)
    chance = random.Random(processes)

    for moment in MOMENTS.values():
        kill_at(moment, lambda hold: Running(tmp_path, words, processes, hold), chance)
    run = Running(tmp_path, words, processes).finish()

    assert run != undisturbed
    assert content(undisturbed) == finished, "a finished run is left alone"
    assert len([path for path in run.parent.iterdir() if not path.is_symlink()]) == 2
    assert content(run)["bundle/model.safetensors"] == finished["bundle/model.safetensors"]
    facts, expected = Bundle.open(run).facts, Bundle.open(undisturbed).facts
    assert facts.training["order"] == expected.training["order"]
    assert facts.training["steps"] == EPOCHS * STEPS
    assert facts.metrics == expected.metrics
    epochs = [row["epoch"] for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())]
    assert epochs == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert not list(run.rglob(".*")), "nothing half-written is left"
