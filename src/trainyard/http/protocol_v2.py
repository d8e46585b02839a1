"""The Open Inference Protocol, version 2, as KServe, Triton and MLServer speak it: requests and answers in JSON.

A model has the input ``image`` (base64) or ``text`` and the outputs ``label`` and ``probabilities``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainyard.base.errors import ItemError
from trainyard.http.request_types import Accepts, Request, RequestError, check_count, check_keys, read_all
from trainyard.http.strict_json import Value
from trainyard.inference.predictor import Predictor
from trainyard.preprocess.text import without_surrogates

OUTPUTS = ("label", "probabilities")


def v2_request(value: dict[str, Value], accepts: Accepts) -> Request:
    """The request that an object with the key ``inputs`` is.

    Parameters are taken, as the protocol allows them anywhere, and have no effect.

    Raises:
        RequestError: the input has another name, datatype or shape, or a key is unknown.
    """
    check_keys(value, ("id", "model_name", "parameters", "inputs", "outputs"), "the JSON")
    _check_parameters(value)
    inputs = value["inputs"]
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(f'inputs isn\'t a list of one input, {{"name": "{accepts.kind}", ...}}')
    items = read_all(accepts.sent_item, _data(inputs[0], accepts))
    id, model = _text(value, "id"), _text(value, "model_name")
    return Request(items, "v2", id=id, outputs=_outputs(value.get("outputs", [])), model=model)


def v2_answer(
    scores: Sequence[NDArray[np.float32] | ItemError],
    request: Request,
    predictor: Predictor,
    model: str,
    version: str,
) -> dict[str, Value]:
    """The answer to a request of which at least one item has one.

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
    best = ["" if isinstance(score, ItemError) else predictor.best(score, 1).label for score in scores]
    tensors: dict[str, Value] = {
        "label": {"name": "label", "datatype": "BYTES", "shape": [len(scores)], "data": best},
        "probabilities": {"name": "probabilities", "datatype": "FP32", "shape": [len(scores), len(labels)],
                          "data": [probability for row in rows for probability in row]},
    }  # fmt: skip
    return {
        "model_name": model,
        "model_version": version,
        **({} if request.id is None else {"id": request.id}),
        "outputs": [tensors[name] for name in request.outputs or OUTPUTS],
        "parameters": {
            "labels": list(labels),
            **predictor.deployed._asdict(),
            **_uncertain(scores, predictor),
            **({"errors": errors} if errors else {}),
        },
    }


def _data(tensor: dict[str, Value], accepts: Accepts) -> list[Value]:
    """The values of an input, one of each item."""
    check_keys(tensor, ("name", "shape", "datatype", "parameters", "data"), "the input")
    _check_parameters(tensor)
    if tensor.get("name") != accepts.kind:
        raise RequestError(f"this model's input has the name {accepts.kind}")
    if tensor.get("datatype") != "BYTES":
        raise RequestError(f"the input {accepts.kind} has the datatype BYTES")
    data: Value = tensor.get("data")
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


def _outputs(value: Value) -> tuple[str, ...]:
    """The names of the outputs that a request wants."""
    names = []
    for output in value if isinstance(value, list) else [None]:
        if not isinstance(output, dict) or output.get("name") not in OUTPUTS:
            raise RequestError(f"outputs isn't a list of objects with the name {' or '.join(OUTPUTS)}")
        check_keys(output, ("name", "parameters"), "the output")
        _check_parameters(output)
        names.append(str(output["name"]))
    return tuple(dict.fromkeys(names))


def _check_parameters(value: dict[str, Value]) -> None:
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict) or any(isinstance(one, dict | list) for one in parameters.values()):
        raise RequestError("parameters isn't an object of strings, numbers and booleans")


def _uncertain(scores: Sequence[NDArray[np.float32] | ItemError], predictor: Predictor) -> dict[str, Value]:
    """The positions of uncertain answers, if the model tells them from others."""
    if predictor.bundle.facts.certainty is None:
        return {}
    answers = ((i, predictor.best(score, 1)) for i, score in enumerate(scores) if not isinstance(score, ItemError))
    return {"uncertain": [i for i, answer in answers if answer.uncertain]}


def _text(value: dict[str, Value], key: str) -> str | None:
    text = value.get(key)
    if text is None or (isinstance(text, str) and without_surrogates(text) == text):
        return text
    raise RequestError(f"{key} isn't a string of Unicode")
