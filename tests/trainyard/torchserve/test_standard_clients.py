"""The released clients of other servers ask ours, with their own defaults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.torchserve.running import running

SCRIPT = Path(__file__).parents[1] / "support" / "standard_clients.py"
# Beside what is installed and without what they want besides: KServe's client would bring its server and Kubernetes.
PACKAGES = [
    "tritonclient==2.73.0", "brotli==1.2.1", "gevent==26.9.0", "geventhttpclient==2.6.1", "greenlet==3.5.6",
    "python-rapidjson==1.25", "zope.event==6.2", "zope.interface==8.7",
    "kserve==0.21.0", "cloudevents==1.13.0", "deprecation==2.1.0", "orjson==3.13.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages."""
    folder = tmp_path_factory.mktemp("clients")
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--target"]
    subprocess.run([sys.executable, "-m", "pip", *install, folder, *PACKAGES], check=True)
    return folder


@pytest.mark.slow
def test_the_clients_of_triton_and_kserve_work_as_they_are(
    clients: Path, exported_images: Path, exported_texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = min((exported_images / "bundle" / "samples" / "golden").iterdir())
    models = [f"images={exported_images}", f"texts={exported_texts}"]
    with running(models, ["--format", "onnx", "--workers", "1"]) as server:
        monkeypatch.setenv("PYTHONPATH", str(clients))
        command = [sys.executable, SCRIPT, server.inference_url, image]
        done = subprocess.run(command, input=server.token, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
