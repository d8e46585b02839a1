"""Answers to requests, whichever server sends them: all items of all requests go through the model in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from pydantic_core import to_json

from trainyard.base.errors import ItemError, OutputError
from trainyard.heads.base import answer_row
from trainyard.http.batch import Facts, Reply, Score
from trainyard.http.request_types import HEADER_LENGTH, OCTETS, Accepts, Request, RequestError, Value, shown
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
        self.accepts = Accepts(predictor.bundle.kind, predictor.bundle.reads_pairs)
        self._predictor, self._model, self._version = predictor, model, version

    def answer(self, requests: Sequence[Request | RequestError], began: float | None = None) -> list[Reply]:
        """Answers each request, in their order; what is wrong with one touches no other.

        Args:
            requests: The batch.
            began: By ``time.perf_counter``, when reading the requests did; now by default.
        """
        began = time.perf_counter() if began is None else began
        requests = [one if isinstance(one, RequestError) else self._checked(one) for one in requests]
        good = [item for request in requests if isinstance(request, Request)
                for item in request.items if not isinstance(item, ItemError)]  # fmt: skip
        trace = Trace()
        scored = zip(self._predictor.score(good, trace), trace.measures, strict=True)
        preprocess_seconds = time.perf_counter() - began - trace.model_seconds
        replies: list[Reply] = []
        batch: int | None = len(good)
        for request in requests:
            if isinstance(request, RequestError):
                replies.append(Reply(request.status, to_json({"error": str(request)})))
                continue
            found = [(item, {}) if isinstance(item, ItemError) else next(scored) for item in request.items]
            facts = Facts.of(found, preprocess_seconds, trace.model_seconds, batch)
            replies.append(self._reply(request, [score for score, _ in found])._replace(facts=facts))
            batch = None
        return replies

    def _checked(self, request: Request) -> Request | RequestError:
        """Refuses what is meant for another model, or would hold up everybody else, before anything is decoded."""
        if request.model not in (None, self._model):
            return RequestError(f"model_name is {shown(request.model)} in a request to the model {self._model}")
        if len(request.items) > 1:  # one alone has limits of its own
            kind = self._predictor.bundle.preprocessor
            cost = sum(kind.cost(item) for item in request.items if not isinstance(item, ItemError))
            if cost > kind.budget:
                reason = f"its items have {cost:,} {kind.unit} together, of which a request may have {kind.budget:,}"
                return RequestError(f"{reason}: send several requests", 413)
        return request

    def _reply(self, request: Request, scores: Sequence[Score]) -> Reply:
        errors = [score for score in scores if isinstance(score, ItemError)]
        at_fault = any(isinstance(error, OutputError) for error in errors)
        if len(errors) == len(scores) and (at_fault or len(scores) == 1):
            return Reply(500 if at_fault else 400, to_json({"error": str(errors[0])}))
        if request.form == "v2":
            return self._v2_reply(request, scores)
        best = self._predictor.best
        rows = [answer_row(score if isinstance(score, ItemError) else best(score, request.top_k)) for score in scores]
        answered = rows[0] if request.form == "one" else {"predictions": rows}
        deployed = self._predictor.deployed._asdict()
        return Reply(200, to_json({**answered, "model": self._model, "version": self._version, "deployed": deployed}))

    def _v2_reply(self, request: Request, scores: Sequence[Score]) -> Reply:
        """JSON, and the binary tensors behind it.

        A tensor has no place for errors: an item that has one gets an empty label, zeros for probabilities, and the
        reason by its position in the parameter ``errors``.
        """
        bundle, best = self._predictor.bundle, self._predictor.best
        errors = {str(i): str(score) for i, score in enumerate(scores) if isinstance(score, ItemError)}
        answers = {i: best(score, 1) for i, score in enumerate(scores) if not isinstance(score, ItemError)}
        parameters: dict[str, Value] = {"labels": list(bundle.labels), **self._predictor.deployed._asdict()}
        if bundle.facts.certainty is not None:
            parameters["uncertain"] = [i for i, answer in answers.items() if answer.uncertain]
        if errors:
            parameters["errors"] = errors
        names = [answers[i].label if i in answers else "" for i in range(len(scores))]
        packed = b"".join(len(name).to_bytes(4, "little") + name for name in map(str.encode, names))
        none = np.zeros(len(bundle.labels), np.float32)
        rows = np.array([none if isinstance(score, ItemError) else score for score in scores], "<f4")
        tensors: dict[str, tuple[str, Sequence[int], Value, bytes]] = {
            "label": ("BYTES", [len(scores)], names, packed),
            "probabilities": ("FP32", rows.shape, rows.ravel().tolist(), rows.tobytes()),
        }
        outputs: list[Value] = []
        behind = b""
        for name, is_binary in request.outputs.items():
            datatype, shape, data, content = tensors[name]
            told = {"parameters": {"binary_data_size": len(content)}} if is_binary else {"data": data}
            outputs.append({"name": name, "datatype": datatype, "shape": shape, **told})
            behind += content if is_binary else b""
        named = {"model_name": self._model, "model_version": self._version}
        id = {} if request.id is None else {"id": request.id}
        head = to_json({**named, **id, "outputs": outputs, "parameters": parameters})
        return Reply(200, head + behind, OCTETS, {HEADER_LENGTH: str(len(head))}) if behind else Reply(200, head)
