"""FSDP against DDP, over two processes of CPUs: the same weights, also when the run is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainyard.base.errors import UsageError
from trainyard.config.experiment import TrainerConfig
from trainyard.training.processes import check_hardware

ROOT = Path(__file__).parents[3]
SMALL = ["data.limit=200", "data.batch_size=16", "trainer.max_epochs=2", "trainer.threads=1", "trainer.save_every=2",
         "trainer.loggers=[]"]  # fmt: skip
BERT = ["configs/tickets_bert.yaml", "model.vocab_size=300", "model.layers=2", "optim.layer_decay=0.5",
        "optim.clip=0.1"]  # fmt: skip
RESNET = ["configs/digits_resnet.yaml", "trainer.accumulate=2", "optim.lr=0.01"]
CHANGED = """
import os, sys
from trainyard.cli import main
from trainyard.training import observers, preflight

preflight.check_hardware = lambda trainer: None  # it wants GPUs for FSDP

crash_at = int(sys.argv[1])

def crash(self, report):
    if report.step == crash_at:
        os._exit(7)

observers.Terminal.on_step = crash
sys.argv = ["trainyard", *sys.argv[2:]]
main()
"""


def train(folder: Path, strategy: str, words: list[str], *more: str, crash_at: int = 0) -> int:
    """Runs two processes; returns torchrun's exit code."""
    job = folder / "job.py"
    job.write_text(CHANGED)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(job), str(crash_at),
         "train", *words, *SMALL, f"trainer.strategy={strategy}", f"out={folder / strategy}",
         f"data.cache={folder / 'cache'}", *more],
        cwd=ROOT, text=True, capture_output=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or crash_at, done.stderr
    return done.returncode


def results(folder: Path, strategy: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights of the last checkpoint, and of the bundle."""
    (run,) = (path.parent for path in (folder / strategy).glob("*/*/config.yaml") if not path.parent.is_symlink())
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["model"], load_file(run / "bundle" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("words", [BERT, RESNET, [*BERT, "model.freeze=backbone"]], ids=["bert", "resnet", "frozen"])
def test_sharded_training_ends_with_the_weights_of_ddp(words: list[str], tmp_path: Path) -> None:
    train(tmp_path, "ddp", words)
    if "model.freeze=backbone" not in words:
        assert train(tmp_path, "fsdp", words, crash_at=5) != 0
    train(tmp_path, "fsdp", words, "trainer.resume=auto")

    for one, other in zip(results(tmp_path, "ddp"), results(tmp_path, "fsdp"), strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("NPROC", "2")

    with pytest.raises(UsageError, match="2 processes need as many GPUs, here are 1: set NPROC to fewer"):
        check_hardware(TrainerConfig())
    check_hardware(TrainerConfig(devices="cpu"))


def test_fsdp_is_refused_without_gpus_and_with_16_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="strategy=fsdp needs GPUs"):
        check_hardware(TrainerConfig(strategy="fsdp", devices="cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_hardware(TrainerConfig(strategy="fsdp", precision="bf16-mixed"))
    with pytest.raises(UsageError, match="use bf16-mixed"):
        check_hardware(TrainerConfig(strategy="fsdp", precision="16-mixed"))
