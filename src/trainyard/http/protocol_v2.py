"""The Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it: requests and answers.

A model has the input ``image`` or ``text`` and the outputs ``label`` and ``probabilities``. Their values stand in the
JSON (an image in base64) or, by Triton's extension for binary tensors, as bytes behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError
from trainyard.http.request_types import MAX_ITEMS, Accepts, Request, RequestError, Value, check_count, check_keys
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.base import Item
from trainyard.preprocess.text import without_surrogates

OUTPUTS = ("label", "probabilities")


def v2_request(value: dict[str, Value], accepts: Accepts, tensors: bytes = b"") -> Request:
    """The request that an object with the key ``inputs`` is.

    Parameters are taken, as the protocol allows them anywhere; those for binary tensors alone have an effect.

    Args:
        value: The object.
        accepts: What the model reads.
        tensors: What follows the JSON.

    Raises:
        RequestError: the input has another name, datatype or shape, or a key is unknown.
    """
    check_keys(value, ("id", "model_name", "parameters", "inputs", "outputs"), "the JSON")
    inputs = value["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(f'inputs isn\'t a list of one input, {{"name": "{accepts.kind}", ...}}')
    is_binary = _parameters(value).get("binary_data_output") is True
    outputs = _outputs(value.get("outputs", []), is_binary)
    return Request(
        _items(inputs[0], accepts, tensors),
        "v2",
        id=_text(value, "id"),
        outputs=tuple(outputs),
        binary=frozenset(name for name in outputs or OUTPUTS if outputs.get(name, is_binary)),
        model=_text(value, "model_name"),
    )


def v2_answer(
    scores: Sequence[NDArray[np.float32] | ItemError],
    request: Request,
    predictor: Predictor,
    model: str,
    version: str,
) -> tuple[dict[str, Value], bytes]:
    """The answer to a request of which at least one item has one: an object, and the binary tensors behind its JSON.

    A tensor has no place for errors: an item that has one gets an empty label, zeros for probabilities, and the reason
    by its position in the parameter ``errors``.

    Args:
        scores: Of each item its probabilities ``[classes] float32``, or its error.
        request: What was asked.
        predictor: What answered.
        model: The model's name.
        version: Its version.
    """
    labels = predictor.bundle.labels
    errors = {str(i): str(score) for i, score in enumerate(scores) if isinstance(score, ItemError)}
    none = [0.0] * len(labels)
    rows = [none if isinstance(score, ItemError) else score.tolist() for score in scores]
    answers = [None if isinstance(score, ItemError) else predictor.best(score, 1) for score in scores]
    best = [answer.label if answer else "" for answer in answers]
    uncertain: list[Value] = [i for i, answer in enumerate(answers) if answer and answer.uncertain]
    probabilities = [probability for row in rows for probability in row]
    tensors: dict[str, dict[str, Value]] = {
        "label": {"name": "label", "datatype": "BYTES", "shape": [len(scores)], "data": best},
        "probabilities": {"name": "probabilities", "datatype": "FP32", "shape": [len(scores), len(labels)],
                          "data": probabilities},
    }  # fmt: skip
    packed = {"label": _packed(best), "probabilities": np.asarray(probabilities, "<f4").tobytes()}
    names = request.outputs or OUTPUTS
    for name in request.binary:
        del tensors[name]["data"]
        tensors[name]["parameters"] = {"binary_data_size": len(packed[name])}
    answer: dict[str, Value] = {
        "model_name": model,
        "model_version": version,
        **({} if request.id is None else {"id": request.id}),
        "outputs": [tensors[name] for name in names],
        "parameters": {
            "labels": list(labels),
            **predictor.deployed._asdict(),
            **({} if predictor.bundle.facts.certainty is None else {"uncertain": uncertain}),
            **({"errors": errors} if errors else {}),
        },
    }
    return answer, b"".join(packed[name] for name in names if name in request.binary)


def _items(tensor: dict[str, Value], accepts: Accepts, tensors: bytes) -> tuple[Item | ItemError, ...]:
    check_keys(tensor, ("name", "shape", "datatype", "parameters", "data"), "the input")
    size = _parameters(tensor).get("binary_data_size")
    if tensor.get("name") != accepts.kind:
        raise RequestError(f"this model's input has the name {accepts.kind}")
    if tensor.get("datatype") != "BYTES":
        raise RequestError(f"the input {accepts.kind} has the datatype BYTES")
    if size is None and not tensors:
        return tuple(map(accepts.item, _data(tensor, tensor.get("data"), accepts)))
    if size is True or size != len(tensors) or "data" in tensor:  # true is equal to 1
        raise RequestError(f"{len(tensors)} bytes follow the JSON: the input has this binary_data_size and no data")
    return tuple(map(accepts.item, _data(tensor, _unpacked(tensors), accepts)))


def _data(tensor: dict[str, Value], data: Value, accepts: Accepts) -> list[Value]:
    """The values of an input, one of each item."""
    if not isinstance(data, list):
        raise RequestError("the input has no list of data")
    if accepts.pair and not any(isinstance(value, list) for value in data):
        data = [data[i : i + 2] for i in range(0, len(data), 2)]  # the protocol lets tensors be flat or nested
    check_count(len(data), "data")
    shape = tensor.get("shape")
    expected = [len(data), 2] if accepts.pair else [len(data)]
    if shape != expected or str(shape) != str(expected):  # true and 1.0 are equal to 1
        raise RequestError(f"the shape of the input isn't {expected}, as its data are")
    return list(data)


def _unpacked(tensors: bytes) -> list[bytes]:
    """The values of a tensor of bytes, of which each stands behind its length, in four bytes with the lowest first."""
    values: list[bytes] = []
    at = 0
    while at < len(tensors) and len(values) <= 2 * MAX_ITEMS:  # more are refused as they are
        end = at + 4 + int.from_bytes(tensors[at : at + 4], "little")
        if at + 4 > len(tensors) or end > len(tensors):
            raise RequestError("the binary data of the input end in the middle of a value")
        values.append(tensors[at + 4 : end])
        at = end
    return values


def _packed(values: Sequence[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(value)) + value for value in encoded)


def _outputs(value: Value, is_binary: bool) -> dict[str, bool]:
    """The outputs that a request wants, and whether as binary tensors, which they are by default if ``is_binary``."""
    wanted: dict[str, bool] = {}
    for output in value if isinstance(value, list) else [None]:
        if not isinstance(output, dict) or output.get("name") not in OUTPUTS:
            raise RequestError(f"outputs isn't a list of objects with the name {' or '.join(OUTPUTS)}")
        check_keys(output, ("name", "parameters"), "the output")
        wanted[str(output["name"])] = _parameters(output).get("binary_data", is_binary) is True
    return wanted


def _parameters(value: dict[str, Value]) -> dict[str, Value]:
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict) or any(isinstance(one, dict | list) for one in parameters.values()):
        raise RequestError("parameters isn't an object of strings, numbers and booleans")
    return parameters


def _text(value: dict[str, Value], key: str) -> str | None:
    text = value.get(key)
    if text is None or (isinstance(text, str) and without_surrogates(text) == text):
        return text
    raise RequestError(f"{key} isn't a string of Unicode")
