"""Asks a server by the released clients of Triton and KServe, each with its own calls and defaults.

python standard_clients.py URL IMAGE_FILE    with the token on stdin; the models are called images and texts
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

URL, IMAGE, TOKEN = sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.stdin.read()
TEXTS = ["my parcel is late", "bücher & more"]


def headers() -> dict[str, str]:
    """A client may change those that it is given."""
    return {"Authorization": f"Bearer {TOKEN}"}


def text(label: bytes | str) -> str:
    """A label as it came in binary, or in JSON."""
    return label.decode() if isinstance(label, bytes) else label


def ask_as_triton() -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    def tensor(name: str, values: list[bytes | str], is_binary: bool = True) -> list[InferInput]:
        given = InferInput(name, [len(values)], "BYTES")
        given.set_data_from_numpy(np.array(values, dtype=object), binary_data=is_binary)
        return [given]

    with InferenceServerClient(URL.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("images", headers=headers())
        assert client.is_model_ready("images", "1.0", headers=headers())
        assert not client.is_model_ready("images", "9", headers=headers())
        assert client.get_server_metadata(headers=headers())["name"] == "trainyard"
        assert client.get_model_metadata("texts", "1.0", headers=headers())["inputs"][0]["name"] == "text"
        for refused in (client.get_model_config, client.get_inference_statistics, client.get_model_metadata):
            with pytest.raises(InferenceServerException) as caught:
                refused("none", headers=headers())
            assert caught.value.status() == "404"

        answer = client.infer("images", tensor("image", [IMAGE, IMAGE]), headers=headers())
        assert answer.as_numpy("probabilities").shape == (2, 10)
        assert answer.as_numpy("label")[0].decode() in answer.get_response()["parameters"]["labels"]
        expected = client.infer("texts", tensor("text", TEXTS), headers=headers(), request_id="7")
        assert expected.get_response()["id"] == "7"
        labels, probabilities = (
            [text(label) for label in expected.as_numpy("label")],
            expected.as_numpy("probabilities"),
        )
        for options in (
            {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"},
            {"request_compression_algorithm": "deflate", "model_version": "1.0"},
            {"outputs": [InferRequestedOutput(name) for name in ("label", "probabilities")]},
            {"outputs": [InferRequestedOutput(name, binary_data=False) for name in ("probabilities", "label")]},
        ):
            for is_binary in (True, False):
                given = tensor("text", TEXTS, is_binary)
                answer = client.infer("texts", given, headers=headers(), **options)
                assert [text(label) for label in answer.as_numpy("label")] == labels, (options, is_binary)
                np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities, atol=1e-5)
        asked = client.async_infer("texts", tensor("text", TEXTS), headers=headers())
        assert len(asked.get_result().as_numpy("label")) == 2


async def ask_as_kserve() -> None:
    # The package's own __init__ imports its server, and Kubernetes with it.
    package = types.ModuleType("kserve")
    found = importlib.util.find_spec("kserve")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["kserve"] = package
    from kserve.inference_client import InferenceRESTClient, RESTConfig
    from kserve.protocol.infer_type import InferInput, InferRequest

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(URL)
        assert await client.is_server_ready(URL)
        assert await client.is_model_ready(URL, "images", headers=headers())
        assert not await client.is_model_ready(URL, "none", headers=headers())
        for is_binary in (False, True):
            given = InferInput("text", [2], "BYTES")
            given.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object), binary_data=is_binary)
            request = InferRequest("texts", [given])
            answer = await client.infer(URL, request, "texts", headers=headers())
            assert [output.name for output in answer.outputs] == ["label", "probabilities"]
            assert answer.outputs[1].as_numpy().shape[0] == 2
        given = InferInput("image", [1], "BYTES")
        given.set_data_from_numpy(np.array([IMAGE], dtype=object), binary_data=True)
        request = InferRequest("images", [given], parameters={"binary_data_output": True})
        answer = await client.infer(URL, request, "images", headers=headers())
        assert answer.outputs[1].as_numpy().shape == (1, 10)
        told = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": TEXTS[:1]}]}
        assert (await client.infer(URL, told, "texts", headers=headers())).model_name == "texts"


ask_as_triton()
asyncio.run(ask_as_kserve())
