"""Training on one GPU: examples/s beside a bare PyTorch loop, share of the GPU's peak, and CIFAR-10's seconds to 94 %.

    python benchmarks/gpu.py [--cifar10 DIR]

The three models see generated data: ResNet-18 with the stem for small images at 32 pixels, ResNet-50 at 224, and a BERT
of base size with 128 tokens. All run in bf16, through the loop of `trainyard train` and through a bare loop over the
same batches in memory. The share of the peak counts the model's own floating-point operations, forward and backward, as
torch counts them. With CIFAR-10's JPEG folder (`train/<class>/`, `test/<class>/`) it also trains by
configs/cifar10_resnet18.yaml, whose schedule is meant to end above 94 %: the seconds are those of its training steps.

No network is needed, and no installation either: packages that it names as missing can be unpacked wheels in a folder
on PYTHONPATH. `--device cpu --quick` tries the script out on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from measure import CONFIGS, QUICK, Figure, folder, median, median_ratio, parser, report, start, take_turns

if TYPE_CHECKING:
    from workload import Workload

PACKAGES = ("filelock", "lightning", "rich", "safetensors", "sklearn", "tokenizers", "torchmetrics", "torchvision",
            "transformers", "typer", "yaml")  # fmt: skip
PEAK_TFLOPS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16, from NVIDIA's data sheets; the first name that the device's holds counts."""
TARGET = 0.94
LEAST_SHARE = 0.9


def main(words: list[str] | None = None) -> None:
    """Measures all three models and, with data, the time to 94 %."""
    options = parser(__doc__ or "", rounds=3)
    options.add_argument(
        "--cifar10", type=folder, metavar="DIR", help="CIFAR-10's JPEG folder, for the seconds to 94 %%"
    )
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(default %(default)s)")
    options.add_argument("--peak-tflops", type=float, metavar="N", help="the device's peak in bf16, if it isn't known")
    options.add_argument("--only", metavar="NAME", help="one of resnet18, resnet50, bert, cifar10")
    arguments = start(options, words, PACKAGES)
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py finds no GPU: try it out with --device cpu --quick")
    report(measure(arguments), arguments)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """The figures of all subjects, or of the one that ``--only`` names."""
    from generated import GENERATED, Setting
    from workload import quiet_folder

    figures: list[Figure] = []
    with quiet_folder() as scratch:
        for name, make in GENERATED.items():
            if arguments.only in (None, name):
                figures += measure_speed(name, make(Setting(scratch, arguments.device, arguments.quick)), arguments)
        if arguments.only in (None, "cifar10"):
            if arguments.cifar10 is None:
                print("  no --cifar10 DIR: the seconds to 94 % are left out", file=sys.stderr)
            else:
                figures += measure_target(arguments, scratch)
    return figures


def measure_speed(name: str, workload: Workload, arguments: argparse.Namespace) -> list[Figure]:
    """Examples/s through both loops, and what share of the peak ours are."""
    from workload import bare_optimizer, train_bare, train_by_loop

    from trainyard.training.processes import start_fabric

    device = start_fabric(workload.experiment.trainer).device
    # On the GPU already, so that the bare loop waits for nothing.
    batches, optim = [batch.to(device) for batch in workload.batches()], workload.experiment.optim.name
    examples = sum(len(batch.labels) for batch in batches)

    def bare() -> float:
        model = workload.training_task().model.to(device)
        optimizer = bare_optimizer(model, optim)
        train_bare(model, batches[:2], optimizer, "bf16-mixed")  # as ours: the first epoch isn't counted
        return examples / train_bare(model, batches, optimizer, "bf16-mixed")

    cases: dict[str, Callable[[], float]] = {
        f"{name}: bare loop": bare,
        f"{name}: trainyard": lambda: train_by_loop(workload, workload.training_task()).examples_per_second,
    }
    turns = take_turns(cases, arguments.rounds)
    bare_rates, our_rates = turns.values()
    figures = [Figure(case, median(rates), "examples/s") for case, rates in turns.items()]
    figures.append(
        Figure(f"{name}: trainyard / bare loop", median_ratio(our_rates, bare_rates), "", at_least=LEAST_SHARE)
    )
    tflops = median(our_rates) * flops_of_an_example(workload) / 1e12
    figures.append(Figure(f"{name}: TFLOP/s", tflops, "TFLOP/s"))
    if (peak := peak_tflops(arguments)) is not None:
        figures.append(Figure(f"{name}: share of the peak of {peak:g} TFLOP/s", tflops / peak, ""))
    return figures


def flops_of_an_example(workload: Workload) -> float:
    """Floating-point operations of a forward and backward pass, counted on the CPU in float32: they're the same."""
    import numpy as np
    from torch.utils.flop_counter import FlopCounterMode

    from trainyard.data.loader import make_loader

    batch = next(iter(make_loader(workload.bare, [np.arange(2)])))
    model = workload.training_task().model.cpu()
    with FlopCounterMode(display=False) as counter:
        model(**batch.inputs).sum().backward()
    return float(counter.get_total_flops()) / len(batch.labels)


def peak_tflops(arguments: argparse.Namespace) -> float | None:
    """The device's peak in bf16: what the option says, or that of a known GPU."""
    import torch

    if arguments.peak_tflops is not None:
        return float(arguments.peak_tflops)
    if arguments.device == "cpu":
        return None
    device = torch.cuda.get_device_name()
    known = next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)
    if known is None:
        print(f"  the peak of {device} isn't known: --peak-tflops N gives it", file=sys.stderr)
    return known


def measure_target(arguments: argparse.Namespace, scratch: Path) -> list[Figure]:
    """Trains the shipped recipe to its end, once for each round, with another seed."""
    from trainyard.base.project import require_project
    from trainyard.config.load import load_experiment

    project = require_project()
    train = cast("Callable[..., Path]", project.resolve(project.run))

    overrides = [f"data.path={arguments.cifar10}", f"out={scratch}", "trainer.loggers=[]"]
    if arguments.device == "cpu":
        overrides += ["trainer.devices=cpu"]
    if arguments.quick:
        overrides += ["data.limit=32", "trainer.max_epochs=1", *QUICK]
    seconds, accuracies = [], []
    for seed in range(arguments.rounds):
        run = train(load_experiment(CONFIGS / "cifar10_resnet18.yaml", [*overrides, f"seed={seed}"]))
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        seconds.append(float(metrics["train"]["seconds"]))
        accuracies.append(float(metrics["test"]["accuracy"]))
        print(f"  seed {seed}: {seconds[-1]:.1f} s, test accuracy {accuracies[-1]:.4f}", file=sys.stderr, flush=True)
    mean = sum(accuracies) / len(accuracies)
    return [
        Figure(f"CIFAR-10, ResNet-18: mean test accuracy of {len(accuracies)} seeds", mean, "", at_least=TARGET),
        Figure("CIFAR-10, ResNet-18: training", median(seconds), "s"),
    ]


if __name__ == "__main__":
    main()
