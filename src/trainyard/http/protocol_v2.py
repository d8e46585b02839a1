"""The Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it: requests and answers.

A model has the input ``image`` or ``text`` and the outputs ``label`` and ``probabilities``. Their values stand in the
JSON (an image in base64) or, by Triton's extension for binary tensors, as bytes behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import to_json

from trainyard.base.errors import ItemError
from trainyard.http.request_types import MAX_ITEMS, OUTPUTS, Accepts, Request, RequestError, StrictObject, Value
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.text import without_surrogates

Scores: TypeAlias = Sequence[NDArray[np.float32] | ItemError]
"""Of each item its probabilities ``[classes] float32``, or its error."""


class _Object(StrictObject):
    """The protocol allows parameters anywhere; those for binary tensors alone have an effect."""

    parameters: dict[str, str | int | float | bool | None] | None = None

    def parameter(self, name: str, default: Value = None) -> Value:
        return (self.parameters or {}).get(name, default)


class _Input(_Object):
    name: str
    datatype: Literal["BYTES"]
    shape: list[int]
    data: list[Value] | None = None


class _Output(_Object):
    name: Literal["label", "probabilities"]


class _Infer(_Object):
    id: str | None = None
    model_name: str | None = None
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: list[_Output] | None = None


def v2_request(value: Value, accepts: Accepts, tensors: bytes = b"") -> Request:
    """The request that an object with the key ``inputs`` is, with the binary tensors that follow its JSON.

    Raises:
        RequestError: the input has another name, datatype or shape, or a key is unknown.
    """
    asked = _Infer.read(value)
    if asked.id and without_surrogates(asked.id) != asked.id:
        raise RequestError("the id isn't Unicode: it holds half of a surrogate pair")
    binary = asked.parameter("binary_data_output")
    outputs: dict[str, bool] = {one.name: one.parameter("binary_data", binary) is True for one in asked.outputs or ()}
    items = tuple(map(accepts.item, _data(asked.inputs[0], accepts, tensors)))
    return Request(
        items, "v2", id=asked.id, outputs=outputs or dict.fromkeys(OUTPUTS, binary is True), model=asked.model_name
    )


def _data(tensor: _Input, accepts: Accepts, tensors: bytes) -> list[Value]:
    """The values of an input, one of each item."""
    if tensor.name != accepts.kind:
        raise RequestError(f"this model's input has the name {accepts.kind}")
    data, size = tensor.data, tensor.parameter("binary_data_size")
    if tensors or size is not None:
        if size is True or size != len(tensors) or data is not None:  # true is equal to 1
            raise RequestError(f"{len(tensors)} bytes follow the JSON: the input has this binary_data_size and no data")
        data = _unpacked(tensors)
    if data is None:
        raise RequestError("the input has no list of data")
    if accepts.pair and not any(isinstance(value, list) for value in data):
        data = [data[i : i + 2] for i in range(0, len(data), 2)]  # the protocol lets tensors be flat or nested
    expected = [len(data), 2] if accepts.pair else [len(data)]
    if tensor.shape != expected:
        raise RequestError(f"the shape of the input isn't {expected}, as its data are")
    return data


def _unpacked(tensors: bytes) -> list[Value]:
    """The values of a tensor of bytes, of which each stands behind its length, in four bytes with the lowest first."""
    values: list[Value] = []
    at = 0
    while at < len(tensors):
        start = at + 4
        at = start + int.from_bytes(tensors[at:start], "little")
        if at > len(tensors) or len(values) == 2 * MAX_ITEMS:
            why = f"end in the middle of a value, or hold more than {MAX_ITEMS} items"
            raise RequestError(f"the binary data of the input {why}")
        values.append(tensors[start:at])
    return values


def v2_answer(scores: Scores, request: Request, predictor: Predictor, model: str, version: str) -> tuple[bytes, bytes]:
    """The answer to a request of which at least one item has one: JSON, and the binary tensors behind it.

    A tensor has no place for errors: an item that has one gets an empty label, zeros for probabilities, and the reason
    by its position in the parameter ``errors``.
    """
    labels = predictor.bundle.labels
    errors = {str(i): str(score) for i, score in enumerate(scores) if isinstance(score, ItemError)}
    best = {i: predictor.best(score, 1) for i, score in enumerate(scores) if not isinstance(score, ItemError)}
    parameters: dict[str, Value] = {"labels": list(labels), **predictor.deployed._asdict()}
    if predictor.bundle.facts.certainty is not None:
        parameters["uncertain"] = [i for i, answer in best.items() if answer.uncertain]
    if errors:
        parameters["errors"] = errors
    names = [best[i].label if i in best else "" for i in range(len(scores))]
    packed = b"".join(len(name).to_bytes(4, "little") + name for name in map(str.encode, names))
    none = [0.0] * len(labels)
    rows = [none if isinstance(score, ItemError) else score.tolist() for score in scores]
    flat = [probability for row in rows for probability in row]
    tensors: dict[str, tuple[str, list[int], Value, bytes]] = {
        "label": ("BYTES", [len(scores)], names, packed),
        "probabilities": ("FP32", [len(scores), len(labels)], flat, np.array(flat, "<f4").tobytes()),
    }
    outputs: list[Value] = []
    behind = b""
    for name, is_binary in request.outputs.items():
        datatype, shape, data, content = tensors[name]
        told = {"parameters": {"binary_data_size": len(content)}} if is_binary else {"data": data}
        outputs.append({"name": name, "datatype": datatype, "shape": shape, **told})
        behind += content if is_binary else b""
    id = {} if request.id is None else {"id": request.id}
    answer = {"model_name": model, "model_version": version, **id, "outputs": outputs, "parameters": parameters}
    return to_json(answer), behind
