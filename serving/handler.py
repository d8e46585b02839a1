"""What TorchServe's workers run: a shell around the predictor. ``docs/requests.md`` shows what it answers.

TorchServe takes the one class that this file defines for the handler.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard.artifacts.manifest import check_digests
from trainyard.http.batch import Sent, read_requests, write_replies
from trainyard.http.request_types import OCTETS, TEXT, Accepts, Request, RequestError
from trainyard.http.requests import json_request, parse_request, parts_request
from trainyard.http.responses import Responder
from trainyard.inference.deployed import open_deployed
from trainyard.inference.predictor import Predictor

if TYPE_CHECKING:
    from ts.context import Context

Row = Mapping[str, object]
"""A request as TorchServe gives it: the body by the name ``body``, or the fields of a form by theirs."""


class Handler:
    """Answers a batch of requests with the model that lies beside it in the archive."""

    def initialize(self, context: Context) -> None:
        """Opens what is deployed; raises if it isn't as it was sealed, or not what ``TRAINYARD_EXPECT`` names."""
        settings = context.model_yaml_config["handler"]
        model, system = context.manifest["model"], context.system_properties
        expect = check_digests(os.environ.get("TRAINYARD_EXPECT", ""))
        # What needs the owner's code, as eager does, brings his package along.
        for package in (Path(system["model_dir"]) / "project").glob("*"):
            sys.path.insert(0, str(package.parent))
            os.environ["TRAINYARD_PROJECT"] = package.name
        opened = open_deployed(Path(system["model_dir"]) / "deployed", settings["format"], expect)
        device = _device(settings.get("device", "cpu"), system.get("gpu_id"))
        predictor = Predictor(opened, settings["format"], device, settings["batch_size"], settings.get("threads"))
        self._is_batched = settings.get("is_batched", False)
        self._responder = Responder(predictor, model["modelName"], model["modelVersion"])

    def handle(self, data: Sequence[Row], context: Context) -> list[bytes]:
        """Answers all requests of a batch by one call of the predictor; gives each its own status.

        The batch is one that TorchServe made, or behind our gateway a request that holds one.
        """
        began = time.perf_counter()
        accepts = self._responder.accepts
        if self._is_batched:
            [row] = data
            sent = read_requests(_bytes(row.get("body")))
            requests = [_tried(parse_request, body, content_type, accepts) for content_type, body in sent]
            return [write_replies(self._responder.answer(requests, began))]
        headers = [context.get_all_request_header(i) for i in range(len(data))]
        requests = [_tried(_decoded_request, row, head, accepts) for row, head in zip(data, headers, strict=True)]
        replies = self._responder.answer(requests, began)
        for i, reply in enumerate(replies):
            context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, i)
            context.set_response_content_type(i, reply.content_type)
            for name, value in reply.headers.items():
                context.set_response_header(i, name, value)
        return [reply.body for reply in replies]


def _device(device: str, gpu: int | None) -> str:
    """TorchServe deals the GPUs out to the workers."""
    return f"cuda:{gpu}" if device == "cuda" and gpu is not None else device


def _tried(read: Callable[..., Request], *arguments: object) -> Request | RequestError:
    try:
        return read(*arguments)
    except RequestError as error:
        return error


def _decoded_request(row: Row, headers: Mapping[str, object], accepts: Accepts) -> Request:
    """The request of a row that came to TorchServe without our gateway, so that JSON and texts are decoded already."""
    if len(row) > 1:
        return parts_request([Sent(_type(name, headers), _bytes(row[name])) for name in row], accepts)
    [(name, value)] = row.items() or [("body", b"")]
    if not isinstance(value, bytes | bytearray | str):
        return json_request(value, accepts)
    # `curl -T FILE`, as TorchServe's own examples have it, names no type.
    default = OCTETS if accepts.kind == "image" else TEXT
    return parse_request(_bytes(value), _type(name, headers) or default, accepts)


def _type(name: str, headers: Mapping[str, object]) -> str:
    """The Content-Type of a body or field."""
    own = headers.get(name)
    return str(own.get("content-type") or "") if isinstance(own, dict) else ""


def _bytes(value: object) -> bytes:
    """The content of a body or field; nothing of decoded JSON, which isn't an item."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, bytes | bytearray) else b""
