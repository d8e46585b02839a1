"""How much the models have to do: who would wait too long is refused at once, and no model takes another's share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from trainyard.gateway.batches import Workers
from trainyard.gateway.bodies import Refused
from trainyard.gateway.proxy import AGAIN, failure
from trainyard.http.batch import Reply

TARGET_SECONDS = 0.035
"""A request that would take longer than this, because of those before it, is refused."""
ROUNDS = 2
"""Batches of each worker that are let in however long they take: one at work, and one that keeps it busy next."""
FEWEST = 32
"""Requests that are let in at least: a few clients of a slow model wait for each other, as they would anywhere."""
WEIGHT = 0.05
"""Of the newest answer in the pace: an answer of some seconds ago counts nothing."""


@dataclass
class _Model:
    least: int
    busy: Reply
    inside: int = 0
    pace: float = 0.0


class Load:
    """What the models have in hand.

    By Little's law, a request that comes to n others of a model is answered after n + 1 times the model's pace, which
    is the time of an answer by the number that were there with it. This needs no rate of requests, no clock of its own
    and no trial of higher limits: it is measured at each answer.

    Args:
        workers: Those of each model, by its name.
        most: Requests at once, of all models together; each has its share of them, whatever the others do.
    """

    def __init__(self, workers: Mapping[str, Workers], most: int) -> None:
        self._share = max(1, most // len(workers))
        self._models = {
            name: _Model(
                max(FEWEST, ROUNDS * own.count * own.batch_size),
                failure(503, f"too many requests of {name} at once; try again", AGAIN, "overload"),
            )
            for name, own in workers.items()
        }

    def refusal(self, name: str, coming: int = 0) -> Reply | None:
        """What is answered to one more request if too many are before it, so that it wouldn't be answered in time.

        Args:
            name: The model's.
            coming: Requests that aren't counted yet.
        """
        model = self._models.get(name)
        if model is None:
            return None
        most = max(model.least, int(TARGET_SECONDS / model.pace)) if model.pace else self._share
        return model.busy if model.inside + coming >= min(most, self._share) else None

    def check(self, name: str) -> None:
        """Sees to it that one more request of this model would be answered in time.

        Raises:
            Refused: too many are before it.
        """
        if refusal := self.refusal(name):
            raise Refused(refusal)

    async def counted(self, name: str, asked: Awaitable[Reply]) -> Reply:
        """An answer, and its time. What is refused or fails tells nothing of a model's pace."""
        model = self._models[name]
        model.inside += 1
        inside, began = model.inside, time.perf_counter()
        try:
            answer = await asked
        finally:
            model.inside -= 1
        if answer.status < 500:
            pace = (time.perf_counter() - began) / inside
            model.pace += WEIGHT * (pace - model.pace) if model.pace else pace
        return answer
