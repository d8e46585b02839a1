"""The script that is a worker: TorchServe's own, but without torch, and with a word on what it is doing.

TorchServe imports torch to ask of each answer whether it is a tensor, which none of ours is. That cost each worker
400 MB, also where an ONNX file answers. What imports torch after that, as a format that needs it does, gets the real
one.
"""

from __future__ import annotations

import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

BUSY, IDLE = "worker busy", "worker idle"
"""What it calls itself, in at most 15 characters, which `serve` and `ps` read."""
NAME = Path("/proc/self/comm")
"""Where Linux takes it; elsewhere nobody is told."""


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


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent))
    without_torch()
    tell_when_busy()
    [packages] = import_module("ts").__path__
    runpy.run_path(f"{packages}/model_service_worker.py", run_name="__main__")
