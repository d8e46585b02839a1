"""A run served by LitServe, for `servers.py`.

    python benchmarks/contestant_litserve.py RUN PORT

It listens on loopback until it is ended.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import Body, Response
from litserve import LitAPI, LitServer
from servers import PATH, one_item, responder, settings

from trainyard.http.batch import Reply
from trainyard.http.request_types import Request


class Api(LitAPI):
    """The body of a request is an item. LitServe reads these annotations: here they can't be strings."""

    def setup(self, device: str) -> None:
        """Loads the model into a worker."""
        self._responder = responder(Path(sys.argv[1]))

    def decode_request(self, request: Annotated[bytes, Body()]) -> Request:
        """Reads one request, in the worker."""
        return one_item(request, self._responder.accepts)

    def predict(self, requests: Sequence[Request]) -> list[Reply]:
        """Answers a batch."""
        return self._responder.answer(requests)

    def encode_response(self, reply: Reply) -> Response:
        """One answer."""
        return Response(reply.body, reply.status, media_type=reply.content_type)


if __name__ == "__main__":
    chosen = settings(Path(sys.argv[1]))
    api = Api(chosen.batch_size, chosen.max_batch_delay_ms / 1000, f"/{PATH}")
    server = LitServer(api, accelerator="cpu", workers_per_device=chosen.workers, fast_queue=True)
    server.run("127.0.0.1", int(sys.argv[2]), log_level="warning", generate_client_file=False, access_log=False)
