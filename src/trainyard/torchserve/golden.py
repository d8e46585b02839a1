"""Golden requests: examples that a bundle carries, with the answers that the model itself gave to them.

A server asks all of them before it says that it is ready, and one of each model at a deep probe.

Whether a served format answers right is judged by what the export measured of it. The format's logits differ from the
model's own by at most ``max_abs_diff`` on the test split, of which the golden requests are a part. With logits that are
off by at most d, a probability p lies between p exp(-2d) and p exp(2d). So much is allowed, and a little for another
processor. No second copy of the model has to be loaded to compare with.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainyard.base.errors import TrainyardError
from trainyard.gateway.proxy import Proxy
from trainyard.http.batch import Sent
from trainyard.http.request_types import JSON
from trainyard.preprocess.base import Item

SLACK = 1e-3
"""Of a probability, beyond what was measured: another processor rounds otherwise."""
MARGIN = 1.5
"""How many times the measured difference of the logits is allowed."""
AT_ONCE = 8
"""Golden requests on their way, so that they are batched as those of clients will be."""


class WrongAnswerError(TrainyardError):
    """A served model answers a golden request wrong."""


@dataclass(frozen=True)
class Golden:
    """A golden request of a model.

    Attributes:
        labels: The classes, in the order of the probabilities.
        probabilities: What the model itself answered.
        max_abs_diff: Largest difference that was measured between the served format's logits and the model's.
    """

    item: Item
    labels: Sequence[str]
    probabilities: Sequence[float]
    max_abs_diff: float

    def complaint(self, answer: bytes) -> str | None:
        """What is wrong with the answer to the request, if anything."""
        try:
            outputs = {output["name"]: output["data"] for output in json.loads(answer)["outputs"]}
            [label], probabilities = outputs["label"], [float(p) for p in outputs["probabilities"]]
        except (ValueError, KeyError, TypeError):
            return f"the answer can't be read: {answer[:200].decode(errors='replace')}"
        if len(probabilities) != len(self.labels):
            return f"{len(probabilities)} probabilities came back where there are {len(self.labels)} classes"
        factor = math.exp(2 * MARGIN * self.max_abs_diff)
        for name, right, p in zip(self.labels, self.probabilities, probabilities, strict=True):
            low, high = right / factor - SLACK, right * factor + SLACK
            if not low <= p <= high:
                return f"the probability of {name} is {p:.4f}, which should be from {low:.4f} to {high:.4f}"
        best = self.labels[probabilities.index(max(probabilities))]
        return None if label == best else f"the label is {label}, where {best} is the most probable"


def request_of(item: Item) -> bytes:
    """A request for one item in the Open Inference Protocol."""
    # By the item's own type: JSON is the protocol's, and a sample that was read has no preprocessor beside it.
    match item:
        case bytes():
            name, shape, data = "image", [1], [base64.b64encode(item).decode()]
        case str():
            name, shape, data = "text", [1], [item]
        case (str(first), str(second)):
            name, shape, data = "text", [1, 2], [first, second]
        case _:
            raise AssertionError(f"a sample is bytes or text, not {type(item).__name__}")
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": "BYTES", "data": data}]}).encode()


class Checks:
    """Asks the served models their golden requests. A model whose bundle carries none is taken to be right."""

    def __init__(self, goldens: Mapping[str, Sequence[Golden]], proxy: Proxy) -> None:
        self._goldens, self._proxy = goldens, proxy
        self._turns = {model: itertools.cycle(some) for model, some in goldens.items() if some}

    async def check_all(self) -> None:
        """Asks all of them.

        Raises:
            WrongAnswerError: an answer isn't right.
        """
        for model, goldens in self._goldens.items():
            for first in range(0, len(goldens), AT_ONCE):
                asked = (self._ask(model, golden) for golden in goldens[first : first + AT_ONCE])
                for position, complaint in enumerate(await asyncio.gather(*asked), first):
                    if complaint:
                        raise WrongAnswerError(f"{model} answers golden request {position} wrong: {complaint}")

    async def check_next(self) -> str | None:
        """Asks each model one of them, in turn; says what is wrong, if anything."""
        for model, goldens in self._turns.items():
            if complaint := await self._ask(model, next(goldens)):
                return f"{model}: {complaint}"
        return None

    async def _ask(self, model: str, golden: Golden) -> str | None:
        reply = await self._proxy.predict(model, Sent(JSON, request_of(golden.item)))
        return golden.complaint(reply.body)
