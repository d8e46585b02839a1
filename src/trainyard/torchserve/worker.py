"""The script that is a worker: TorchServe's own, but without torch and old bodies, and with a word on what it does.

TorchServe imports torch to ask of each answer whether it is a tensor, which none of ours is. That cost each worker
400 MB, also where an ONNX file answers. What imports torch after that, as a format that needs it does, gets the real
one.
"""

from __future__ import annotations

import gc
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

BUSY, IDLE = "worker busy", "worker idle"
"""What it calls itself, in at most 15 characters, which `serve` and `ps` read."""
NAME = Path("/proc/self/comm")
"""Where Linux takes it; elsewhere nobody is told."""
LARGE = 1_000_000
"""Bytes of a batch after which memory is worth some milliseconds."""


def without_torch() -> None:
    """Has TorchServe's own code import a stand-in, and nothing else."""
    stand_in = ModuleType("torch")
    stand_in.__dict__["Tensor"] = type("Tensor", (), {})
    sys.modules["torch"] = stand_in
    import_module("ts.protocol.otf_message_handler")
    del sys.modules["torch"]


def tell_when_busy() -> None:
    """Names the process by whether it has a batch in hand."""
    try:
        name = NAME.open("wb", buffering=0)
    except OSError:
        return
    service = import_module("ts.service").Service
    predict = service.predict

    def named_predict(self: object, batch: object) -> object:
        name.write(BUSY.encode())
        try:
            return predict(self, batch)
        finally:
            name.write(IDLE.encode())

    service.predict = named_predict
    name.write(IDLE.encode())


def forget_bodies() -> None:
    """Has the service hold no body after its batch.

    TorchServe's loop would hold them until the next batch has come in. And what is wrong with a body is an error that
    refers in circles, by its traceback, to the body, which the collector of garbage may not meet for hours.
    """
    service = import_module("ts.service").Service
    predict = service.predict
    is_first = True

    def predict_and_forget(self: object, batch: list[Mapping[str, Sequence[Mapping[str, object]]]]) -> object:
        nonlocal is_first
        if is_first:
            gc.freeze()  # the model and all modules, through which the collector needn't look again
            is_first = False
        size = sum(sys.getsizeof(one["value"]) for request in batch for one in request["parameters"])
        try:
            return predict(self, batch)
        finally:
            batch.clear()
            if size > LARGE:
                gc.collect()

    service.predict = predict_and_forget


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    without_torch()
    forget_bodies()
    tell_when_busy()
    [packages] = import_module("ts").__path__
    runpy.run_path(f"{packages}/model_service_worker.py", run_name="__main__")
