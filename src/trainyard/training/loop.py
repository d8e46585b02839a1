"""The training loop: steps, validation, checkpoints; it can stop after any step and go on with the same numbers."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainyard.base.errors import EXIT_SIGTERM, TrainyardError
from trainyard.base.words import counted
from trainyard.config.experiment import Experiment
from trainyard.data.encoded import EncodedSplit
from trainyard.data.loader import Batch, make_loader
from trainyard.data.sampling import epoch_batches
from trainyard.evaluation.metrics import measure, ranked
from trainyard.evaluation.predict import predict_split
from trainyard.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    Progress,
    full_weights,
    local_part,
    read_checkpoint,
    restore_checkpoint,
    take_checkpoint,
    write_checkpoint,
)
from trainyard.training.ema import ExponentialMovingAverage
from trainyard.training.processes import StopSignal, share_buffers
from trainyard.training.randomness import derive_seed
from trainyard.training.reports import Observer, StepReport, Validation
from trainyard.training.task import TrainingTask

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricOptimizer

log = logging.getLogger(__name__)


class TrainingLoop:
    """Trains a task's model on one split, validates on another.

    Args:
        fabric: The processes of the job.
        task: The model, and what it learns by.
        experiment: The config; the loop reads the library's sections only.
        train: The split to learn from.
        val: The split to validate on.
        classes: Names of the classes.
        folder: Where the checkpoints lie.
        observers: Told of every step and validation of this process.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: TrainingTask,
        experiment: Experiment,
        train: EncodedSplit,
        val: EncodedSplit,
        classes: Sequence[str],
        folder: Path,
        observers: Sequence[Observer] = (),
        workers: int = 0,
    ) -> None:
        self.fabric, self.task, self.experiment = fabric, task, experiment
        self.train, self.val, self.classes = train, val, classes
        self.folder, self.workers = folder, workers
        self.observers = observers
        self.network = task.model.network
        self.wrapped = fabric.setup_module(task)
        # Else these two would go past the wrapper, which sums up gradients and gathers shards.
        self.wrapped.mark_forward_method("training_loss")
        self.wrapped.mark_forward_method("predict")
        self.optimizer = cast("_FabricOptimizer", fabric.setup_optimizers(task.optimizer()))
        self.average = ExponentialMovingAverage(self.network, task.ema) if task.ema else None
        self.sampling_weights = task.sampling_weights(train.labels)
        self.progress = Progress(world_size=fabric.world_size)
        self._since = time.perf_counter()
        self.batches_per_epoch = len(self._epoch_batches(0))
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / experiment.trainer.accumulate)
        self.total_steps = self.steps_per_epoch * experiment.trainer.max_epochs

    def run(self) -> None:
        """Trains until the last epoch or until patience ends.

        Raises:
            TrainyardError: the loss or the weights aren't finite; the last good checkpoint is kept.
            SystemExit: SIGTERM came; a checkpoint was written, the code is 143.
        """
        self._resume()
        epochs, steps = self.experiment.trainer.max_epochs, self.steps_per_epoch
        log.info("training: up to %s of %s", counted(epochs, "epoch"), counted(steps, "step"))
        with StopSignal() as stop:
            while not self._done():
                self._train_epoch(stop)
                self._end_epoch()
                if stop.agreed():
                    self._stop()

    def rehearse(self) -> None:
        """Takes the first step and validates; nothing is written, and nobody but the observers is told.

        Raises:
            TrainyardError: the loss or the weights aren't finite.
        """
        self.wrapped.train()
        for batch in make_loader(self.train, self._epoch_batches(0)[: self.experiment.trainer.accumulate]):
            self._train_batch(batch)
        self._check_weights()
        self._validate()

    def rehearse_checkpoint(self) -> None:
        """Writes a checkpoint and reads it again; of it, too, nothing is left.

        Raises:
            TrainyardError: it can't be written or read.
        """
        path = self.folder / "rehearsed.ckpt"
        write_checkpoint(path, self._collect())
        read_checkpoint(path)
        path.unlink()

    @property
    def facts(self) -> dict[str, object]:
        """What a bundle keeps of its training."""
        progress = self.progress
        return {
            "examples_per_second": round(self.examples_per_second, 2),
            "seconds": round(progress.seconds, 3),
            "epochs": progress.epoch,
            "world_size": progress.world_size,
            "local_processes": int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            "steps": progress.step,
            "best_epoch": progress.best_epoch,
            "order": progress.order,
            "seed": self.experiment.seed,
            "config": self.experiment.model_dump(mode="json"),
        }

    @property
    def examples_per_second(self) -> float:
        """Training examples of all processes by the seconds spent on them."""
        return self.progress.examples / self.progress.seconds if self.progress.seconds else 0.0

    def load_kept_weights(self, network: nn.Module) -> None:
        """Puts the weights that the config keeps, the best epoch's or the last, into a network.

        Every process must call it; only on rank 0 the network is changed.

        Args:
            network: The trained one; if that is sharded, another of the same architecture.
        """
        if self.experiment.trainer.keep == "best" and self.progress.best_epoch:
            weights = read_checkpoint(self.folder / BEST)["model"] if self.fabric.is_global_zero else {}
        else:
            weights = full_weights(self.network) | ({} if self.average is None else self.average.average)
        if self.fabric.is_global_zero:
            network.load_state_dict(weights)

    def _done(self) -> bool:
        trainer = self.experiment.trainer
        exhausted = trainer.patience is not None and self.progress.waited >= trainer.patience
        return exhausted or self.progress.epoch >= trainer.max_epochs

    def _resume(self) -> None:
        # Rank 0 alone writes checkpoints, and nodes may have no folder in common.
        found = self.fabric.is_global_zero and self._has_checkpoint()
        checkpoint = self.fabric.broadcast(read_checkpoint(self.folder / LAST) if found else None)
        if checkpoint is None:
            return
        saved = checkpoint["progress"]["world_size"]
        if saved != self.fabric.world_size:
            raise TrainyardError(
                f"this run has {saved} processes, not {self.fabric.world_size}; go on with NPROC={saved}"
            )
        self.progress = restore_checkpoint(checkpoint, self.network, self.optimizer.optimizer)
        self.fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
        if self.average is not None:
            self.average.load(checkpoint["average"])
        log.info("going on after epoch %d, batch %d", self.progress.epoch, self.progress.batch)

    def _has_checkpoint(self) -> bool:
        return (self.folder / LAST).is_file()

    def _epoch_batches(self, epoch: int) -> list[NDArray[np.int64]]:
        data = self.experiment.data
        return epoch_batches(
            len(self.train),
            data.batch_size,
            seed=self.experiment.seed,
            epoch=epoch,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            lengths=self.train.lengths if getattr(data, "bucket", False) else None,
            weights=self.sampling_weights,
        )

    def _train_epoch(self, stop: StopSignal) -> None:
        self.wrapped.train()
        batches = self._epoch_batches(self.progress.epoch)[self.progress.batch :]
        loader = make_loader(self.train, batches, workers=self.workers, pin_memory=self.fabric.device.type == "cuda")
        self._since = time.perf_counter()
        for batch in loader:
            self._train_batch(batch)
            if not self._at_step():
                continue
            if stop.agreed():
                self._save()
                self._stop()
            if self._save_due():
                self._save()

    def _clock(self) -> None:
        """Adds the time since the last call; validation isn't counted, because each epoch starts the clock anew."""
        now = time.perf_counter()
        self.progress.seconds += now - self._since
        self._since = now

    def _train_batch(self, batch: Batch) -> None:
        """Forward and backward of one batch, and the optimiser's step when enough batches are added up."""
        trainer, progress = self.experiment.trainer, self.progress
        epoch = progress.epoch
        # Dropout's draws follow from the step too, so no generator's state is saved.
        torch.manual_seed(derive_seed(self.experiment.seed, "step", epoch, progress.batch, self.fabric.global_rank))
        progress.saw(batch.indices.numpy())
        start = (progress.batch - 1) // trainer.accumulate * trainer.accumulate
        together = min(trainer.accumulate, self.batches_per_epoch - start)
        at_step = self._at_step()
        with self.fabric.no_backward_sync(self.wrapped, enabled=not at_step):
            with self.fabric.autocast():
                loss = self.wrapped.training_loss(batch.to(self.fabric.device), epoch)
            self.fabric.backward(loss / together)
        if at_step:
            self._optimizer_step(loss.detach())

    def _at_step(self) -> bool:
        accumulate = self.experiment.trainer.accumulate
        return self.progress.batch % accumulate == 0 or self.progress.batch == self.batches_per_epoch

    def _optimizer_step(self, loss: Tensor) -> None:
        progress = self.progress
        factor = self.task.schedule(progress.step, self.total_steps)
        groups = self.optimizer.optimizer.param_groups
        for group in groups:
            group["lr"] = group["peak_lr"] * factor
        if (clip := self.task.clip) is not None:
            self.fabric.clip_gradients(self.task, self.optimizer, max_norm=clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(progress.step)
        progress.step += 1
        self._report_step(loss, max(group["lr"] for group in groups))

    def _report_step(self, loss: Tensor, lr: float) -> None:
        if self.progress.step % self.experiment.trainer.log_every == 0 or self.fabric.device.type == "cpu":
            # On a GPU this waits for the step, so it isn't asked every time.
            self._check_finite(loss)
        self._clock()
        trainer, progress = self.experiment.trainer, self.progress
        best = None if progress.best is None else ranked(trainer.monitor, progress.best)
        step, epoch, speed = progress.step, progress.epoch, self.examples_per_second
        report = StepReport(step, self.total_steps, epoch, loss, lr, speed, trainer.max_epochs, best)
        for observer in self.observers:
            observer.on_step(report)

    def _check_finite(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise self._diverged(f"the loss is {loss.item()}")

    def _diverged(self, what: str) -> TrainyardError:
        kept = "the checkpoint before it is kept" if self._has_checkpoint() else "there is no checkpoint yet"
        fix = "Try a smaller optim.lr, optim.clip=1.0 or trainer.precision=32"
        return TrainyardError(f"{what} at step {self.progress.step}; {kept}. {fix}")

    def _save_due(self) -> bool:
        every = self.experiment.trainer.save_every
        # The end of the epoch saves anyway, and must: validation belongs to it.
        return every is not None and self.progress.step % every == 0 and self.progress.batch < self.batches_per_epoch

    def _stop(self) -> None:
        log.warning("stopped by SIGTERM at step %d; go on with trainer.resume=auto", self.progress.step)
        raise SystemExit(EXIT_SIGTERM)

    def _end_epoch(self) -> None:
        validation = self._validate()
        self.progress.epoch += 1
        self.progress.batch = 0
        self.progress.waited = 0 if validation.improved else self.progress.waited + 1
        for observer in self.observers:
            observer.on_validation(validation)
        self._save(best=validation.improved)

    def _validate(self) -> Validation:
        with self._averaged(), self.fabric.autocast():
            self.wrapped.eval()
            share_buffers(self.network)
            logits = predict_split(
                self.wrapped.predict,
                self.val,
                batch_size=self.experiment.data.batch_size,
                device=self.fabric.device,
                workers=self.workers,
            )
        scores = measure(self.task.head, logits, torch.from_numpy(self.val.labels), self.classes)
        monitor = self.experiment.trainer.monitor
        value = ranked(monitor, scores.summary()[monitor])
        improved = self.progress.best is None or value > self.progress.best
        if improved:
            self.progress.best, self.progress.best_epoch = value, self.progress.epoch + 1
        return Validation(self.progress.epoch + 1, self.progress.step, scores, logits, improved)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def _save(self, best: bool = False) -> None:
        """Writes ``last.ckpt``, and before it ``best.ckpt``: what is judged best is the average, if there is one."""
        self._check_weights()
        checkpoint = self._collect()
        if self.fabric.is_global_zero:
            if best:
                averaged = {**checkpoint["model"], **checkpoint["average"]}
                write_checkpoint(self.folder / BEST, {**checkpoint, "model": averaged})
            write_checkpoint(self.folder / LAST, checkpoint)
        self.fabric.barrier()

    def _collect(self) -> Checkpoint:
        average = {} if self.average is None else self.average.average
        scaler = self.fabric.strategy.precision.state_dict()
        return take_checkpoint(self.network, self.optimizer.optimizer, self.progress, scaler, average)

    def _check_weights(self) -> None:
        # Each process looks at its own shard, and all must come to the same answer.
        finite = all(bool(torch.isfinite(local_part(parameter)).all()) for parameter in self.network.parameters())
        flag = torch.tensor(float(finite), device=self.fabric.device)
        if not cast(Tensor, self.fabric.all_reduce(flag, reduce_op="min")).item():
            raise self._diverged("the weights aren't finite")
