"""Answers to requests, whichever server sends them: all items of all requests go through the model in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic_core import to_json

from trainyard.base.errors import ItemError, OutputError
from trainyard.heads.base import answer_row
from trainyard.http.batch import Facts, Reply
from trainyard.http.protocol_v2 import Scores, v2_answer
from trainyard.http.request_types import HEADER_LENGTH, OCTETS, Accepts, Request, RequestError, shown
from trainyard.inference.predictor import Predictor, Trace


class Responder:
    """Answers requests with a predictor.

    Args:
        predictor: What answers.
        model: The name that the server knows the model by.
        version: Its version there.

    Attributes:
        accepts: What the model reads.
    """

    def __init__(self, predictor: Predictor, model: str, version: str) -> None:
        self.accepts = Accepts.of(predictor.bundle)
        self._predictor, self._model, self._version = predictor, model, version

    def answer(self, requests: Sequence[Request | RequestError], began: float | None = None) -> list[Reply]:
        """Answers each request, in their order; what is wrong with one touches no other.

        Args:
            requests: The batch.
            began: By ``time.perf_counter``, when reading the requests did; now by default.
        """
        began = time.perf_counter() if began is None else began
        requests = [self._checked(request) for request in requests]
        good = [item for request in requests if isinstance(request, Request)
                for item in request.items if not isinstance(item, ItemError)]  # fmt: skip
        trace = Trace()
        scored = zip(self._predictor.score(good, trace), trace.measures, strict=True)
        preprocess_seconds = time.perf_counter() - began - trace.model_seconds
        replies: list[Reply] = []
        batch: int | None = len(good)
        for request in requests:
            if isinstance(request, RequestError):
                replies.append(error_reply(request.status, str(request)))
                continue
            found = [(item, {}) if isinstance(item, ItemError) else next(scored) for item in request.items]
            scores, measures = zip(*found, strict=True)
            facts = Facts.of(scores, measures, preprocess_seconds, trace.model_seconds, batch)
            replies.append(self._reply(request, scores)._replace(facts=facts))
            batch = None
        return replies

    def _checked(self, request: Request | RequestError) -> Request | RequestError:
        """Refuses what is meant for another model, or would hold up everybody else, before anything is decoded."""
        if isinstance(request, RequestError):
            return request
        if request.model not in (None, self._model):
            return RequestError(f"model_name is {shown(request.model)} in a request to the model {self._model}")
        if len(request.items) > 1:  # one alone has limits of its own
            kind = self._predictor.bundle.preprocessor
            cost = sum(kind.cost(item) for item in request.items if not isinstance(item, ItemError))
            if cost > kind.budget:
                reason = f"its items have {cost:,} {kind.unit} together, of which a request may have {kind.budget:,}"
                return RequestError(f"{reason}: send several requests", 413)
        return request

    def _reply(self, request: Request, scores: Scores) -> Reply:
        errors = [score for score in scores if isinstance(score, ItemError)]
        at_fault = any(isinstance(error, OutputError) for error in errors)
        if len(errors) == len(scores) and (at_fault or len(scores) == 1):
            return error_reply(500 if at_fault else 400, str(errors[0]))
        if request.form == "v2":
            head, tensors = v2_answer(scores, request, self._predictor, self._model, self._version)
            return Reply(200, head + tensors, OCTETS, {HEADER_LENGTH: str(len(head))}) if tensors else Reply(200, head)
        best = self._predictor.best
        rows = [answer_row(score if isinstance(score, ItemError) else best(score, request.top_k)) for score in scores]
        answered = rows[0] if request.form == "one" else {"predictions": rows}
        deployed = self._predictor.deployed._asdict()
        return Reply(200, to_json({**answered, "model": self._model, "version": self._version, "deployed": deployed}))


def error_reply(status: int, reason: str) -> Reply:
    """The answer to a request that failed as a whole."""
    return Reply(status, to_json({"error": reason}))
