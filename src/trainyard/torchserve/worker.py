"""The script that is a worker: TorchServe's own, but without torch and old bodies, and with a word on what it does.

TorchServe imports torch to ask of each answer whether it is a tensor, which none of ours is. That cost each worker
400 MB, also where an ONNX file answers. What imports torch after that, as a format that needs it does, gets the real
one.
"""

from __future__ import annotations

import gc
import logging
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

BUSY, IDLE = b"worker busy", b"worker idle"
"""What it calls itself, in at most 15 characters, which `serve` and `ps` read."""
NAME = Path("/proc/self/comm")
"""Where Linux takes it; elsewhere nobody is told."""
STARTED = "trainyard: this is process "
"""What it says first, with its id; TorchServe's own workers say it only where they are spoken to by Unix sockets."""
LOADED = "trainyard: the model is loaded"
"""What it says when it can be asked."""
CHATTER = "Backend received inference at: %d"
"""What TorchServe says of each batch: to write it took a twentieth of a small model's time."""
LARGE = 1_000_000
"""Bytes of a batch after which memory is worth some milliseconds."""


def without_torch() -> None:
    """Has TorchServe's own code import a stand-in, and nothing else."""
    stand_in = ModuleType("torch")
    stand_in.__dict__["Tensor"] = type("Tensor", (), {})
    sys.modules["torch"] = stand_in
    import_module("ts.protocol.otf_message_handler")
    del sys.modules["torch"]


def watch_service() -> None:
    """Has the service say when it has its model, name the process by what it does, and hold no body after its batch.

    TorchServe's loop would hold bodies until the next batch has come in. And what is wrong with a body is an error that
    refers in circles, by its traceback, to the body, which the collector of garbage may not meet for hours.
    """
    service = import_module("ts.service").Service
    predict, set_socket = service.predict, service.set_cl_socket
    name = (NAME if NAME.exists() else Path(os.devnull)).open("wb", buffering=0)

    def loaded(self: object, socket: object) -> None:
        set_socket(self, socket)
        gc.freeze()  # the model and all modules, through which the collector needn't look again
        sys.stdout.write(f"\n{LOADED}\n")  # a line of its own, whatever a model's code may have printed

    def watched_predict(self: object, batch: list[Mapping[str, Sequence[Mapping[str, object]]]]) -> object:
        size = sum(sys.getsizeof(one["value"]) for request in batch for one in request["parameters"])
        name.write(BUSY)
        try:
            return predict(self, batch)
        finally:
            batch.clear()
            if size > LARGE:
                gc.collect()
            name.write(IDLE)

    service.set_cl_socket, service.predict = loaded, watched_predict
    logging.getLogger().addFilter(lambda record: record.msg != CHATTER)


if __name__ == "__main__":
    sys.stdout.write(f"{STARTED}{os.getpid()}\n")
    sys.path.remove(str(Path(__file__).parent))
    without_torch()
    watch_service()
    [packages] = import_module("ts").__path__
    runpy.run_path(f"{packages}/model_service_worker.py", run_name="__main__")
