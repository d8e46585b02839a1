"""Lightning is imported without torchmetrics, and knows its classes once somebody else has imported it."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
from trainyard.config.experiment import TrainerConfig
from trainyard.training.processes import start_fabric
start_fabric(TrainerConfig(devices="cpu"))
"""


def run(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_start_imports_no_metrics() -> None:
    heavy = ("torchmetrics", "transformers", "scipy", "matplotlib", "sklearn")
    assert run(f"{START}\nprint([name for name in {heavy} if name in sys.modules])") == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_lightning_knows_the_metrics_of_who_imports_them(order: str) -> None:
    parts = ["import torchmetrics", START]
    asked = """
from lightning.pytorch.core import module
metric = torchmetrics.MeanMetric()
print(isinstance(metric, module.Metric), isinstance(1, module.Metric), hasattr(torchmetrics, "functional"))
"""
    assert run("\n".join([*(parts if order == "before" else parts[::-1]), asked])) == "True False True\n"
