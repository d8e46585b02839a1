"""What a run was made with: versions and machine, so that a figure can be understood later."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from trainyard.base.cpu import this_cpu
from trainyard.base.version import VERSION

PACKAGES = ("torch", "torchvision", "lightning", "transformers", "tokenizers", "datasets", "numpy", "pillow",
            "onnx", "onnxruntime", "torchao")  # fmt: skip


def describe_environment() -> dict[str, object]:
    """Python, packages, processor and GPU of this process."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "trainyard": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": this_cpu().name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
