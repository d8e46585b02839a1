"""ResNet-20 on CIFAR-10's JPEG folder from the second epoch on, beside torchvision's usual pipeline.

    python benchmarks/images.py --cifar10 DIR --cores 2

DIR is CIFAR-10's JPEG folder (`train/<class>/`, `test/<class>/`). The usual pipeline is ImageFolder with transforms of
each PIL image (random crop with a padding of 4, flip, tensor, normalisation) and a DataLoader with the number of
workers that is fastest here, around the same model and a bare loop, in a process of its own: what `trainyard train`
sets for its process isn't the usual pipeline's. Bar: 1.3 times its images/s. Ours is the loop of `trainyard train`,
whose decoded images are cached since the first epoch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
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
    from torch import Tensor
    from torch.utils.data import DataLoader
    from workload import Workload

    from trainyard.data.loader import Batch

BATCHES, QUICK_BATCHES = 80, 3
LEAST_RATIO = 1.3


def main(words: list[str] | None = None) -> None:
    """Measures both pipelines."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--cifar10", type=folder, metavar="DIR", required=True, help="CIFAR-10's JPEG folder")
    arguments = start(options, words, ["lightning", "torchvision"])
    report(measure(arguments), arguments)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Images/s of both, and their ratio."""
    from workload import load_workload, quiet_folder, train_by_loop

    batch_size, batches = (QUICK_BATCH_SIZE, QUICK_BATCHES) if arguments.quick else (128, BATCHES)
    words = [f"data.path={arguments.cifar10}", f"data.batch_size={batch_size}", f"data.limit={batch_size * batches}",
             "trainer.max_epochs=2", "trainer.devices=cpu", PLAIN_OPTIMIZER,
             *(QUICK if arguments.quick else ())]  # fmt: skip
    with quiet_folder() as runs, other_process(words, arguments.cifar10, batch_size * batches) as usual:
        workload = load_workload("cifar10_resnet20", *words, f"out={runs}")
        workers = best_workers(usual, arguments.quick)
        title = f"ImageFolder, {workers} workers"
        cases: dict[str, Callable[[], float]] = {
            title: partial(turn_of, usual, workers),
            "trainyard": lambda: train_by_loop(workload, workload.training_task()).examples_per_second,
        }
        turns = take_turns(cases, arguments.rounds)
    return [
        *(Figure(name, median(values), "images/s") for name, values in turns.items()),
        Figure("trainyard / ImageFolder", median_ratio(turns["trainyard"], turns[title]), "", at_least=LEAST_RATIO),
    ]


def other_process(words: list[str], path: str, images: int) -> ProcessPoolExecutor:
    """A fresh process that holds the usual pipeline and waits for its turns."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_hold_pipeline, initargs=(words, path, images))


def turn_of(usual: ProcessPoolExecutor, workers: int) -> float:
    """Images/s of one turn in the other process."""
    return usual.submit(_take_turn, workers).result()


def best_workers(usual: ProcessPoolExecutor, quick: bool) -> int:
    """The number of workers that is fastest here, from none to twice the cores."""
    from trainyard.base.cpu import available_cores

    candidates = [0] if quick else sorted({0, 1, available_cores(), 2 * available_cores()})
    print("trying numbers of workers", file=sys.stderr)
    cases = {f"{workers} workers": partial(turn_of, usual, workers) for workers in candidates}
    rates = [median(values) for values in take_turns(cases, rounds=1).values()]
    return candidates[rates.index(max(rates))]


_pipelines: list[UsualPipeline] = []
"""The other process's only one."""


def _hold_pipeline(words: list[str], path: str, images: int) -> None:
    from workload import load_workload

    _pipelines.append(UsualPipeline(load_workload("cifar10_resnet20", *words), path, images))


def _take_turn(workers: int) -> float:
    return _pipelines[0].images_per_second(workers)


class UsualPipeline:
    """What a torchvision tutorial trains with.

    Args:
        workload: Whose model is trained.
        path: CIFAR-10's JPEG folder.
        images: Images of a turn, drawn anew from the whole training folder.
    """

    def __init__(self, workload: Workload, path: str, images: int) -> None:
        from torchvision import datasets, transforms

        from trainyard.models.image import ImageModelConfig
        from trainyard.preprocess.image import ImagePreprocessor

        preprocessor, model = workload.task.preprocessor, workload.experiment.model
        assert isinstance(preprocessor, ImagePreprocessor)
        assert isinstance(model, ImageModelConfig)
        self.workload, self.images = workload, images
        self.dataset = datasets.ImageFolder(
            os.path.join(path, "train"),
            transforms.Compose([
                transforms.RandomCrop(preprocessor.size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(model.mean, model.std),
            ]),
        )  # fmt: skip
        self.loader: tuple[int, DataLoader[tuple[Tensor, Tensor]]] | None = None

    def images_per_second(self, workers: int) -> float:
        """Of one turn; the workers of the turn before are still there, as in a second epoch."""
        from workload import bare_optimizer, train_bare

        network = self.workload.training_task().model.network
        precision = self.workload.experiment.trainer.precision
        return self.images / train_bare(network, self.batches(workers), bare_optimizer(network, "sgd"), precision)

    def batches(self, workers: int) -> Iterator[Batch]:
        """Its batches, in the form that the bare loop takes."""
        from trainyard.data.loader import Batch

        for images, labels in self._loader(workers):
            yield Batch({"images": images}, labels, labels)

    def _loader(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        from torch.utils.data import DataLoader, RandomSampler

        # One at a time: the workers of another would wait, and take memory.
        if self.loader is None or self.loader[0] != workers:
            self.loader = None
            sampler = RandomSampler(self.dataset, num_samples=self.images)
            batch_size = self.workload.experiment.data.batch_size
            self.loader = workers, DataLoader(self.dataset, batch_size, sampler=sampler, num_workers=workers,
                                              persistent_workers=workers > 0)  # fmt: skip
        return self.loader[1]


if __name__ == "__main__":
    main()
