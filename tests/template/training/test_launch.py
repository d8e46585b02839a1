"""How many processes, where they meet, and which exit code comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from trainyard.base.errors import UsageError
from trainyard.config.experiment import TrainerConfig
from trainyard.training import launch as launch_module
from trainyard.training.launch import needs_launch, nodes, processes
from trainyard.training.processes import is_muted

ROOT = Path(__file__).parents[3]
WORDS = ["configs/digits_resnet.yaml", "data.limit=200", "data.batch_size=16", "trainer.threads=1",
         "trainer.log_every=1"]  # fmt: skip
VARIABLES = ("NPROC", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "MEET_SECONDS", "LOCAL_RANK", "LOG_RANK",
             "RANK", "WORLD_SIZE")  # fmt: skip
CHANGED = """
import os, sys
from trainyard.cli import main
from trainyard.training.loop import TrainingLoop

def fail(self, loss):
    if self.fabric.global_rank == {rank} and self.progress.step == 2:
        {statement}

TrainingLoop._check_finite = fail
main()
"""


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("devices", "gpus", "nproc", "expected"),
    [
        ("auto", 0, None, 1),
        ("auto", 4, None, 4),
        ("cpu", 4, None, 1),
        (3, 0, None, 3),
        ("auto", 4, "2", 2),
        (3, 0, "1", 1),
    ],
)
def test_nproc_then_devices_then_gpus_say_how_many_processes(
    devices: str | int, gpus: int, nproc: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "GPU_FILES", ("/dev/null",))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if nproc is not None:
        monkeypatch.setenv("NPROC", nproc)
    config = TrainerConfig.model_validate({"devices": devices})

    assert processes(config) == expected
    assert needs_launch(config) == (expected > 1)


def test_torch_is_not_asked_where_no_driver_shows_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "GPU_FILES", ("/dev/nothing*", "/dev/none"))
    monkeypatch.setitem(sys.modules, "torch", None)

    assert processes(TrainerConfig()) == 1


def test_one_process_on_each_of_two_nodes_is_launched_and_a_launched_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NNODES", "2")
    assert needs_launch(TrainerConfig(devices="cpu"))
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not needs_launch(TrainerConfig(devices="cpu"))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "", "²"])
def test_a_number_of_processes_or_nodes_must_be_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, count in (("NPROC", lambda: processes(TrainerConfig())), ("NNODES", nodes)):
        monkeypatch.setenv(variable, text)
        with pytest.raises(UsageError, match=f"{variable}={text} must be a whole number of at least 1: set it"):
            count()
        monkeypatch.delenv(variable)


def test_where_nodes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch_module._meeting_place() == {}
    assert launch_module._ranks(1, 2) == {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}

    monkeypatch.setenv("NNODES", "3")
    with pytest.raises(UsageError, match="MASTER_ADDR must name the first node's address"):
        launch_module._meeting_place()

    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert launch_module._meeting_place() == {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "GROUP_RANK": "0"}
    assert launch_module.meeting_seconds() == 600
    for variable, value in (("MASTER_PORT", "1234"), ("MEET_SECONDS", "5"), ("NODE_RANK", "2")):
        monkeypatch.setenv(variable, value)
    assert launch_module._meeting_place() == {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234", "GROUP_RANK": "2"}
    assert launch_module.meeting_seconds() == 5
    assert launch_module._ranks(1, 2) == {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("NODE_RANK", "3", "NODE_RANK=3 must be below NNODES=3: the nodes are counted from 0"),
        ("NODE_RANK", "-1", "NODE_RANK=-1 must be a whole number of at least 0"),
        ("MASTER_PORT", "abc", "MASTER_PORT=abc must be a whole number of at least 1"),
        ("MASTER_PORT", "0", "MASTER_PORT=0 must be a whole number of at least 1"),
        ("MASTER_PORT", "65536", "MASTER_PORT=65536 must be a port, from 1 to 65535"),
        ("MEET_SECONDS", "soon", "MEET_SECONDS=soon must be a whole number of at least 1"),
    ],
)
def test_a_wrong_place_to_meet_is_one_sentence(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, set_to in (("NNODES", "3"), ("MASTER_ADDR", "10.0.0.1"), (variable, value)):
        monkeypatch.setenv(name, set_to)
    with pytest.raises(UsageError, match=sentence):
        launch_module._meeting_place()


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (143, 143), (-9, 137), (-15, 143)])
def test_a_processs_code_becomes_the_shells(code: int, expected: int) -> None:
    assert launch_module._exit_code(code) == expected


@pytest.mark.parametrize(
    ("rank", "log_rank", "muted"),
    [("0", None, False), ("1", None, True), ("0", "1", True), ("1", "1", False), ("1", "0,1", False)],
)
def test_log_rank_chooses_who_prints(
    rank: str, log_rank: str | None, muted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_muted(), "one process alone prints"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    if log_rank is not None:
        monkeypatch.setenv("LOG_RANK", log_rank)
    assert is_muted() == muted


PACKAGE = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
def say(text):
    os.write(1, (text + "\\n").encode())
if sys.argv[1] == "fail":
    time.sleep(0 if rank == 1 else 60)
    sys.exit(3)
signal.signal(signal.SIGTERM, lambda *_: (say("told"), sys.exit(int(sys.argv[1]))))
say("ready")
time.sleep(60)
"""
LAUNCH = """
import signal, sys
from trainyard.config.experiment import TrainerConfig
from trainyard.training.launch import launch
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background of a shell ignore it
code = launch(sys.argv[1:], TrainerConfig(devices=2))
assert "torch" not in sys.modules
sys.exit(code)
"""


def launch_package(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Has the real launcher start two processes of a package called trainyard that does no more than its argument."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src" / "trainyard" / "__main__.py").write_text(PACKAGE)
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
    )  # fmt: skip


def test_the_first_to_fail_ends_the_others_and_gives_its_code(tmp_path: Path) -> None:
    begin = time.monotonic()
    process = launch_package(tmp_path, "fail")
    process.communicate(timeout=60)

    assert process.returncode == 3
    assert time.monotonic() - begin < 50, "nobody waited for the other to end by itself"


@pytest.mark.parametrize(
    ("number", "child", "code"),
    [(signal.SIGTERM, "143", 143), (signal.SIGTERM, "0", 0)],
    ids=["stopped", "done already"],
)
def test_a_signal_goes_on_to_all_processes(number: signal.Signals, child: str, code: int, tmp_path: Path) -> None:
    process = launch_package(tmp_path, child)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)

    assert process.returncode == code
    assert stdout == "told\ntold\n"


def test_ctrl_c_is_130_and_no_traceback_of_the_launcher(tmp_path: Path) -> None:
    process = launch_package(tmp_path, "1")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130


ORPHAN = "from trainyard.training.launch import end_with_launcher; end_with_launcher(); print('lives')"


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
@pytest.mark.parametrize(("launcher", "code"), [(os.getpid(), 0), (2**30, -signal.SIGKILL)], ids=["lives", "killed"])
def test_a_process_whose_launcher_was_killed_before_it_could_know_ends(launcher: int, code: int) -> None:
    environment = {**os.environ, "LOCAL_RANK": "0", "TRAINYARD_LAUNCHER": str(launcher)}
    process = subprocess.run([sys.executable, "-c", ORPHAN], env=environment, capture_output=True, check=False)

    assert process.returncode == code
    assert process.stdout == (b"" if code else b"lives\n")


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainyard", "train", *WORDS, f"out={folder}/runs", f"data.cache={folder}/cache",
         *words],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NPROC": "2", **environment},
    )  # fmt: skip


def package_that_fails(folder: Path, rank: int, statement: str) -> str:
    """A folder for PYTHONPATH whose trainyard fails on one rank: the launcher starts its processes by that name."""
    package = Path(shutil.copytree(ROOT / "src", folder / "src"))
    (package / "trainyard" / "__main__.py").write_text(CHANGED.format(rank=rank, statement=statement))
    return str(package)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "statement", "code", "said"),
    [
        (1, "os._exit(7)", 7, ""),
        (0, "os.kill(os.getpid(), 9)", 137, ""),
        (1, "raise ValueError('a bug')", 1, "ValueError: a bug"),
        (1, "from trainyard.base.errors import UsageError; raise UsageError('do it so')", 2, "trainyard: do it so\n"),
    ],
    ids=["exit", "killed", "bug", "user"],
)
def test_one_failed_process_ends_all_and_gives_its_code(
    rank: int, statement: str, code: int, said: str, tmp_path: Path
) -> None:
    process = start(tmp_path, PYTHONPATH=package_that_fails(tmp_path, rank, statement))
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == code, stderr
    assert said in stderr
    # Neither the launcher nor the process that lost its peer adds a traceback.
    assert stderr.count("Traceback") == ("ValueError" in said), stderr


@pytest.mark.slow
def test_log_rank_shows_rank_1_beside_rank_0(tmp_path: Path) -> None:
    process = start(tmp_path, "trainer.max_epochs=1", LOG_RANK="0,1")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert Path(stdout.splitlines()[-1]).is_dir()
    told = re.findall(r"epoch .* step .* loss [\d.]+", stderr)

    # Each rank tells of the loss of its own examples.
    assert set(Counter(line.partition(" loss ")[0] for line in told).values()) == {2}
    assert len(set(told)) == len(told) > 4


@pytest.mark.slow
def test_sigterm_to_the_launcher_leaves_a_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path, "trainer.max_epochs=500")
    assert process.stderr is not None
    next(line for line in process.stderr if "step 5/" in line)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 143
    assert "go on with trainer.resume=auto" in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "runs" / "digits_resnet" / "latest" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_a_resume_that_rank_0_refuses_is_one_sentence(tmp_path: Path) -> None:
    process = start(tmp_path, f"trainer.resume={tmp_path}/nowhere")
    _, stderr = process.communicate(timeout=300)

    assert process.returncode == 2
    assert stderr == f"loading PyTorch\ntrainyard: trainer.resume: {tmp_path}/nowhere isn't a run folder\n"
