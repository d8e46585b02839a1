"""How far a server's answers are from what `trainyard evaluate --format` scores, over a whole test split."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainyard.client.messages import Answer
    from trainyard.preprocess.base import Item
    from trainyard.torchserve.running import Running

CONCURRENCY = 8


@dataclass(frozen=True)
class Skew:
    """What differs between a server and the evaluation.

    Attributes:
        examples: That were compared.
        labels: That differ.
        probability: Largest difference of a probability.
        format: What answered.
    """

    examples: int
    labels: int
    probability: float
    format: str


def measure_skew(server: Running, model: str, run: Path, overrides: Sequence[str] = ()) -> Skew:
    """Asks a server about the whole test split, many items in a request and many requests at once, and compares.

    Args:
        server: That serves the run.
        model: The run's name there.
        run: The run.
        overrides: As of `trainyard evaluate`, such as `data.limit=1000`.
    """
    import numpy as np

    from trainyard.artifacts.export_record import open_trusted
    from trainyard.evaluation.evaluate import format_logits

    opened = open_trusted(run)
    labels = opened.bundle.labels
    # Which format answers, an answer says; the test split is the same for all.
    [first] = asyncio.run(_ask(server, model, [_sample(run)], len(labels)))
    format = first.deployed.format
    records, logits = format_logits(opened, format, overrides)
    expected = logits.double().softmax(dim=1).numpy()
    answers = asyncio.run(_ask(server, model, records.items, len(labels)))
    assert all((one.deployed.bundle, one.deployed.format) == (opened.bundle.digest, format) for one in answers)
    served = np.stack([_probabilities(one, labels) for one in answers])
    differing = sum(one.label != labels[best] for one, best in zip(answers, expected.argmax(axis=1), strict=True))
    return Skew(len(answers), differing, float(abs(served - expected).max()), format)


async def _ask(server: Running, model: str, items: Sequence[Item], top_k: int) -> list[Answer]:
    from trainyard.client.client import AsyncClient
    from trainyard.client.messages import Answer

    async with AsyncClient(server.inference_url, server.token, concurrency=CONCURRENCY) as client:
        answers = await client.predict(model, items, top_k)
    good = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(good) == len(items), next(answer for answer in answers if not isinstance(answer, Answer))
    return good


def _sample(run: Path) -> Item:
    from trainyard.artifacts.bundle import find_bundle
    from trainyard.artifacts.samples import golden_samples

    return golden_samples(find_bundle(run))[0].item


def _probabilities(answer: Answer, labels: Sequence[str]) -> NDArray[np.float64]:
    import numpy as np

    known = dict(answer.top)
    return np.array([known[label] for label in labels])
