"""ResNet-20 on CIFAR-10's JPEG folder from the second epoch on, beside torchvision's usual pipeline.

    python benchmarks/images.py --cifar10 DIR --cores 2

DIR is CIFAR-10's JPEG folder (`train/<class>/`, `test/<class>/`). The usual pipeline is ImageFolder with transforms of
each PIL image (random crop with a padding of 4, flip, tensor, normalisation) and a DataLoader with the number of
workers that is fastest here, around the same model and a bare loop. Bar: 1.3 times its images/s. Ours is the loop of
`trainyard train`, whose decoded images are cached since the first epoch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from measure import (
    PLAIN_OPTIMIZER,
    QUICK,
    QUICK_BATCH_SIZE,
    Figure,
    describe,
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
    arguments = options.parse_args(words)
    start(arguments, ["lightning", "torchvision"])
    report(describe(), measure(arguments), arguments)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Images/s of both, and their ratio."""
    from workload import load_workload, quiet_folder, train_by_loop

    batch_size, batches = (QUICK_BATCH_SIZE, QUICK_BATCHES) if arguments.quick else (128, BATCHES)
    with quiet_folder() as runs:
        workload = load_workload(
            "cifar10_resnet20", f"data.path={arguments.cifar10}", f"data.batch_size={batch_size}",
            f"data.limit={batch_size * batches}", f"out={runs}", "trainer.max_epochs=2", "trainer.devices=cpu",
            PLAIN_OPTIMIZER, *(QUICK if arguments.quick else ()),
        )  # fmt: skip
        usual = UsualPipeline(workload, arguments.cifar10, batch_size * batches)
        workers = usual.best_workers(quick=arguments.quick)
        title = f"ImageFolder, {workers} workers"
        cases: dict[str, Callable[[], float]] = {
            title: partial(usual.images_per_second, workers),
            "trainyard": lambda: train_by_loop(workload, workload.module()).examples_per_second,
        }
        turns = take_turns(cases, arguments.rounds)
    return [
        *(Figure(name, median(values), "images/s") for name, values in turns.items()),
        Figure("trainyard / ImageFolder", median_ratio(turns["trainyard"], turns[title]), "", at_least=LEAST_RATIO),
    ]


class UsualPipeline:
    """What a torchvision tutorial trains with.

    Args:
        workload: Whose model is trained.
        path: CIFAR-10's JPEG folder.
        images: Images of a turn, drawn anew from the whole training folder.
    """

    def __init__(self, workload: Workload, path: str, images: int) -> None:
        from torchvision import datasets, transforms

        from trainyard.core.preprocess import ImagePreprocessor
        from trainyard.models.image_model import ImageModelConfig

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
        self.loaders: dict[int, DataLoader[tuple[Tensor, Tensor]]] = {}

    def images_per_second(self, workers: int) -> float:
        """Of one turn; the workers of the turn before are still there, as in a second epoch."""
        from workload import bare_optimizer, train_bare

        network = self.workload.module().classifier.network
        precision = self.workload.experiment.trainer.precision
        return self.images / train_bare(network, self.batches(workers), bare_optimizer(network, "sgd"), precision)

    def best_workers(self, quick: bool) -> int:
        """The number of workers that is fastest here, from none to twice the cores."""
        from trainyard.data.threads import available_cores

        candidates = [0] if quick else sorted({0, 1, available_cores(), 2 * available_cores()})
        print("trying numbers of workers", file=sys.stderr)
        cases = {f"{workers} workers": partial(self.images_per_second, workers) for workers in candidates}
        rates = [median(values) for values in take_turns(cases, rounds=1).values()]
        best = candidates[rates.index(max(rates))]
        self.loaders = {workers: loader for workers, loader in self.loaders.items() if workers == best}
        return best

    def batches(self, workers: int) -> Iterator[Batch]:
        """Its batches, in the form that the bare loop takes."""
        from trainyard.data.loader import Batch

        for images, labels in self._loader(workers):
            yield Batch({"images": images}, labels, labels)

    def _loader(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        from torch.utils.data import DataLoader, RandomSampler

        if workers not in self.loaders:
            sampler = RandomSampler(self.dataset, num_samples=self.images)
            self.loaders[workers] = DataLoader(self.dataset, self.workload.experiment.data.batch_size, sampler=sampler,
                                               num_workers=workers, persistent_workers=workers > 0)  # fmt: skip
        return self.loaders[workers]


if __name__ == "__main__":
    main()
