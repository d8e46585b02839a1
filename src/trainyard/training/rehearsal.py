"""The rehearsal: before the first epoch, a copy of the model goes through what a run needs up to its very end.

It takes a training step, validates, is saved, sealed, opened and asked, by the functions that do so later, and with
the real names of the classes. What would fail after hours then fails in the first seconds.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import gc
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainyard.artifacts.bundle import Bundle
from trainyard.base.errors import EXIT_SIGTERM, BundleError, DataError, TrainyardError, UsageError
from trainyard.base.files import nearest_existing
from trainyard.base.project import require_project
from trainyard.config.experiment import Experiment
from trainyard.data.encoded import EncodedSplit
from trainyard.data.records import Dataset
from trainyard.evaluation.predict import alone
from trainyard.models.base import Task
from trainyard.models.restore import TOLERANCE, open_classifier
from trainyard.report.html import check_report
from trainyard.training.finish import Trained, seal
from trainyard.training.loop import TrainingLoop
from trainyard.training.processes import StopSignal, lone_fabric
from trainyard.training.samples import predict_probabilities
from trainyard.training.task import TrainingTask

if TYPE_CHECKING:
    from lightning.fabric import Fabric

log = logging.getLogger(__name__)

AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)

FEW, MANY = 4, 256
"""Examples of a batch and of each split at first, which are as good as free; and where it failed with so few."""
ASKED = 2
MB = 1_000_000
_ONLY: ContextVar[bool] = ContextVar("only", default=False)


@dataclass(frozen=True)
class Rehearsal:
    """What a run is about to start with. All of it is left as it is: weights, statistics, generators and files.

    Every process of a job rehearses by itself, so that none waits for one that failed; the first alone seals, as at the
    end.

    Args:
        task: The classes and the preprocessor.
        learner: The model with its loss and optimiser.
        resumed: Whether the run is gone on with, and so has its checkpoints already.
    """

    fabric: Fabric
    experiment: Experiment
    dataset: Dataset
    task: Task
    learner: TrainingTask
    train: EncodedSplit
    val: EncodedSplit
    resumed: bool

    def perform(self) -> None:
        """Rehearses with a few examples.

        Raises:
            UsageError, DataError: the config or the data must be changed.
            TrainyardError: something else would fail; the cause is kept.
        """
        log.info("rehearsing with a few examples: a step, a validation and a bundle")
        began = time.perf_counter()
        with alone(), _generators_kept(self.fabric.device), StopSignal() as stop:
            try:
                # On a busy machine, several threads wait for each other far longer than four examples take.
                with _threads(1):
                    done = self._go_through(FEW)
            except UsageError:
                raise
            except TrainyardError as error:
                # A few examples can be too few, as for a metric that needs all classes: no run is refused for that.
                log.info("rehearsing again with more examples, because: %s", error)
                done = self._go_through(max(MANY, len(self.dataset.classes)))
        if stop.received:
            raise SystemExit(EXIT_SIGTERM)
        if done:
            log.info("rehearsed in %.1f s", time.perf_counter() - began)

    def _go_through(self, count: int) -> bool:
        """Rehearses on a new copy with this many examples; returns whether that could be done."""
        folder = self.experiment.out / self.experiment.name
        with (
            _explained("making a folder"),
            # Beside the run to come, where it meets the same file system; unseen, and gone at the end.
            tempfile.TemporaryDirectory(prefix=".rehearsal.", dir=nearest_existing(folder)) as temporary,
        ):
            experiment = _changed(self.experiment, temporary, count)
            val = self.val.select(_some(self.val.labels, count))
            with _explained("a training step and a validation"):
                loop = self._take_step(experiment, val, Path(temporary))
            if loop is None or not self.fabric.is_global_zero:
                return loop is not None
            _check_space(folder, loop, self.resumed)
            with _explained("saving a checkpoint"):
                loop.rehearse_checkpoint()
            splits = {name: split.select(_some(split.labels, count)) for name, split in self.dataset.splits.items()}
            trained = Trained(
                experiment, replace(self.dataset, splits=splits), self.task, loop.task.model, val, loop.facts,
                self.fabric.device, loop.task.head,
            )  # fmt: skip
            bundle = Path(temporary) / "rehearsed"
            bundle.mkdir()
            with _explained("sealing the bundle"):
                measured = seal(bundle, trained)
            with _explained("opening the bundle"):
                _compare_answers(bundle, trained)
            with _explained("drawing the report"):
                metrics = measured.metrics(trained.training)
                check_report(bundle, measured.predictions, metrics, experiment.model_dump(mode="json"))
        return True

    def _take_step(self, experiment: Experiment, val: EncodedSplit, folder: Path) -> TrainingLoop | None:
        """Trains a copy, which the loop then holds; ``None`` where that can't be done here, though the run may."""
        try:
            learner = copy.deepcopy(self.learner)
        except Exception as error:  # a tensor that is computed from others can't be copied, for one
            log.warning("the run isn't rehearsed: its model can't be copied (%s)", error)
            return None
        fabric = lone_fabric(experiment.trainer, self.fabric.device)
        try:
            loop = TrainingLoop(fabric, learner, experiment, self.train, val, self.dataset.classes, folder)
            loop.rehearse()
        except torch.OutOfMemoryError:
            if experiment.trainer.strategy != "fsdp":
                raise
            log.debug("the run isn't rehearsed: its model doesn't fit into one GPU, but it is to be sharded")
            return None
        return loop


def _some(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Up to ``count`` examples, the first of each class before others."""
    first = np.unique(labels, return_index=True)[1].tolist()
    return np.array(list(dict.fromkeys([*first, *range(min(count, len(labels)))]))[:count], dtype=np.int64)


def _changed(experiment: AnyExperiment, folder: str, count: int) -> AnyExperiment:
    """The config with small batches, and with its cache where it doesn't stay."""
    size = min(count, experiment.data.batch_size)
    data = experiment.data.model_copy(update={"cache": folder, "batch_size": size})
    return experiment.model_copy(update={"data": data})


def _check_space(folder: Path, loop: TrainingLoop, resumed: bool) -> None:
    """Raises ``UsageError`` where what the run writes won't fit: the last and the best checkpoint, and the bundle."""
    weights = _bytes([*loop.network.parameters(), *loop.network.buffers()])
    states = loop.optimizer.optimizer.state.values()
    average = {} if loop.average is None else loop.average.average
    checkpoint = weights + _bytes([*average.values(), *(value for state in states for value in state.values())])
    # A checkpoint is written beside the one that it replaces.
    needed = checkpoint if resumed else 2 * checkpoint + weights
    free = shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise UsageError(
            f"the run needs at least {needed / MB:,.1f} MB for its bundle and checkpoints, and {folder} has "
            f"{free / MB:,.1f} MB: free some space, or choose another folder by out=..."
        )


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _compare_answers(folder: Path, trained: Trained) -> None:
    """Opens a bundle and asks it what the model that was sealed is asked."""
    bundle = Bundle.read(folder)
    test = trained.dataset.splits["test"]
    items = [test.items[i] for i in range(min(ASKED, len(test)))]
    answers = predict_probabilities(open_classifier(bundle), bundle.preprocessor, items)
    expected = predict_probabilities(trained.classifier.cpu(), trained.task.preprocessor, items)
    if not np.allclose(answers, expected, rtol=0, atol=TOLERANCE):
        raise BundleError("its answers are others")


@contextlib.contextmanager
def _explained(part: str) -> Iterator[None]:
    """Turns what fails into one sentence, with the key to change where it is known."""
    try:
        yield
    except BundleError as error:
        raise TrainyardError(
            "the model isn't the same once it was sealed and opened: let all its answers depend on be parameters or "
            f"saved buffers, and the restore of its model.kind build the same network ({error})"
        ) from error
    except (TrainyardError, ModuleNotFoundError):  # which say it themselves
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        match error:
            case torch.OutOfMemoryError():
                raise UsageError(f"{part} takes more memory than there is: set a smaller data.batch_size") from error
            case ValueError() if "more than 1 value per channel" in reason:
                raise UsageError(
                    f"data.batch_size is too small for the network's batch norm, set 2 or more ({reason})"
                ) from error
            case UnicodeEncodeError():
                raise DataError(f"a class has a name that isn't Unicode text, rename it ({reason})") from error
            case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EACCES | errno.EROFS):
                raise UsageError(
                    f"{part} failed in the run's folder ({reason}): free some space, or choose another by out=..."
                ) from error
        raise TrainyardError(
            f"the rehearsal of {part} failed: {type(error).__name__}: {reason}; --debug shows where"
        ) from error


@contextlib.contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Leaves every generator of random numbers as it was."""
    ours, theirs = random.getstate(), np.random.get_state()
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)
            if gpus:  # which has no room for a copy that waits for the garbage collector
                gc.collect()
                torch.cuda.empty_cache()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Rehearsed(Exception):
    """Ends a project's run that was to be rehearsed only."""


def rehearse_only(experiment: Experiment) -> None:
    """Takes the steps of the project's run up to where it would open its folder, the rehearsal among them.

    Raises:
        UsageError, DataError, TrainyardError: as the run would.
    """
    project = require_project()
    train = cast("Callable[[Experiment], Path]", project.resolve(project.run))
    token = _ONLY.set(True)
    try:
        train(experiment)
    except _Rehearsed:
        pass
    finally:
        _ONLY.reset(token)


def end_if_only_rehearsed() -> None:
    """Ends the run here where nothing but a rehearsal was wanted."""
    if _ONLY.get():
        raise _Rehearsed
