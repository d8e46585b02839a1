"""scripts/setup.sh on a small project with made-up wheels: no network, nothing of the real environment touched."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BACKEND = """
import tomllib
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with open("pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    name, info = f"{project['name']}-1.0-py3-none-any.whl", f"{project['name']}-1.0.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: 1.0\\n",
        "WHEEL": "Wheel-Version: 1.0\\nTag: py3-none-any\\n",
        "entry_points.txt": project["description"],
    }
    files["RECORD"] = "".join(f"{info}/{file},,\\n" for file in [*files, "RECORD"])
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{info}/{file}", text)
    return name

build_wheel = build_editable
"""
COMMAND = "[console_scripts]\ntrainyard = shutil:which\n"


def pyproject(name: str, entry_points: str) -> str:
    """The least that a distribution needs; its description is what the backend writes as its entry points."""
    return f'''
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
description = """
{entry_points}"""
'''


def found_as(name: str) -> str:
    return f"[trainyard.project]\n{name} = {name}:project\n"


def make_wheel(folder: Path, name: str, version: str) -> str:
    """Write an empty wheel; returns its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_index(folder: Path, wheels: dict[str, str]) -> str:
    """A package index in a folder, as pip reads it; returns its URL."""
    for name, version in wheels.items():
        make_wheel(folder / name, name, version)
        files = "".join(f'<a href="{path.name}">{path.name}</a>' for path in sorted((folder / name).iterdir()))
        (folder / name / "index.html").write_text(f"<!DOCTYPE html><html><body>{files}</body></html>")
    return folder.as_uri()


def locked(name: str, version: str, digest: str, marker: str = "") -> str:
    return f"{name}=={version}{marker} \\\n    --hash=sha256:{digest}\n    # via project\n"


@pytest.fixture
def project(tmp_path):
    """A project folder with setup.sh, whose lock has two packages that can be had and CUDA ones that can't."""
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", folder / "scripts")
    library = folder / "src" / "trainyard"
    library.mkdir(parents=True)
    for place, text in (
        (folder, pyproject("project", found_as("project"))),
        (library, pyproject("trainyard", COMMAND)),
    ):
        (place / "backend.py").write_text(BACKEND)
        (place / "pyproject.toml").write_text(text)
    wheels = tmp_path / "wheels"
    nowhere = "0" * 64
    (folder / "requirements.lock").write_text(
        "# The command that wrote this\n"
        + locked("cuda-bindings", "13.5", nowhere, " ; sys_platform == 'linux'")
        + locked("nvidia-cudnn-cu13", "9.24", nowhere)
        + locked("small", "1.0", make_wheel(wheels, "small", "1.0"))
        + locked("torch", "2.14.1", nowhere)
        + locked("torchmetrics", "1.9", make_wheel(wheels, "torchmetrics", "1.9"))
        + locked("torchvision", "0.29.2", nowhere)
        + locked("triton", "3.8", nowhere, " ; sys_platform == 'linux'")
    )
    return folder


def set_up(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with pip cut off from every index but the ones given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "TORCH_"))}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": (project.parent / "empty").as_uri()}
    pip["PIP_FIND_LINKS"] = str(project.parent / "wheels")
    return subprocess.run(
        ["bash", str(project / "scripts" / "setup.sh")],
        env={**kept, **pip, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def installed(project: Path) -> dict[str, str]:
    """The packages in the project's environment, with their versions."""
    (site,) = project.glob(".venv/lib/python3.*/site-packages")
    names = [path.name.removesuffix(".dist-info").split("-") for path in site.glob("*.dist-info")]
    return {name: version for name, version in names if name not in ("pip", "setuptools")}


@pytest.mark.slow
def test_torch_from_another_index(project):
    index = make_index(project.parent / "index", {"torch": "2.14.1+cpu", "torchvision": "0.29.2+cpu"})

    first = set_up(project, TORCH_INDEX=index)

    assert first.returncode == 0, first.stderr
    everything = {"project": "1.0", "trainyard": "1.0", "small": "1.0", "torchmetrics": "1.9"}
    everything |= {"torch": "2.14.1+cpu", "torchvision": "0.29.2+cpu"}
    assert installed(project) == everything

    # The same again does nothing, also where the index is not named again.
    marker = project / ".venv" / "untouched"
    marker.touch()
    second = set_up(project)
    assert (second.returncode, second.stdout) == (0, "")

    # A changed pyproject.toml installs the project again, and the packages stay.
    (project / "pyproject.toml").write_text(pyproject("project", found_as("project")) + "# changed\n")
    third = set_up(project)
    assert (third.returncode, "done" in third.stdout, marker.exists()) == (0, True, True)

    # Back to the locked builds, which this test's lock can't have: it fails, and is not believed afterwards.
    fourth = set_up(project, TORCH_INDEX="")
    assert fourth.returncode != 0
    assert not (project / ".venv" / "packages.stamp").exists()


@pytest.mark.slow
def test_an_interrupted_set_up_is_done_again(project):
    lock = project / "requirements.lock"
    digest = make_wheel(project.parent / "wheels", "small", "1.0")
    lock.write_text(locked("small", "1.0", "0" * 64))
    tampered = set_up(project)
    assert tampered.returncode != 0
    assert "hash" in tampered.stderr.lower()

    lock.write_text(locked("small", "1.0", digest))
    assert set_up(project).returncode == 0
    (project / ".venv" / "packages.stamp").unlink()  # as an interruption leaves it
    leftover = project / ".venv" / "leftover"
    leftover.touch()

    assert "installing the locked packages" in set_up(project).stdout
    assert not leftover.exists()
    assert installed(project) == {"project": "1.0", "trainyard": "1.0", "small": "1.0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "earlier", ["my_project", "trainyard"], ids=["renamed", "from when both were one distribution"]
)
def test_a_renamed_project_is_the_only_one_and_its_command_works(project, earlier):
    """What an earlier name left would be a second project, and uninstalling it later would take the command with it."""
    (project / "requirements.lock").write_text(
        locked("small", "1.0", make_wheel(project.parent / "wheels", "small", "1.0"))
    )
    ours, library = project / "pyproject.toml", project / "src/trainyard/pyproject.toml"
    now = library.read_text()
    ours.write_text(pyproject(earlier, found_as("my_project") + COMMAND))
    if earlier == "trainyard":
        library.write_text(pyproject("nothing", ""))
    assert set_up(project).returncode == 0
    (project / "src" / "my_project.egg-info").mkdir()

    ours.write_text(pyproject("my_shop", found_as("my_shop")))
    library.write_text(now)
    second = set_up(project)

    assert second.returncode == 0, second.stderr
    assert {"my_shop": "1.0", "trainyard": "1.0"}.items() <= installed(project).items()
    assert "my_project" not in installed(project)
    (site,) = project.glob(".venv/lib/python3.*/site-packages")
    points = [path.read_text() for path in site.glob("*.dist-info/entry_points.txt")]
    assert [text.strip() for text in points if "trainyard.project" in text] == [found_as("my_shop").strip()]
    assert (project / ".venv/bin/trainyard").is_file()
    assert not list((project / "src").glob("*.egg-info"))


def stub(folder: Path, name: str, script: str) -> None:
    """An executable shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_an_unsupported_python_is_refused_in_one_sentence(project, tmp_path):
    stub(tmp_path / "bin", "python3", "exit 1")
    result = set_up(project, PYTHON=str(tmp_path / "bin" / "python3"))
    assert result.returncode == 2
    assert result.stderr.startswith("setup: PYTHON=")
    assert result.stderr.count("\n") == 1


def test_another_python_on_the_path_is_found(project, tmp_path):
    # python3 and python3.13 are there and don't fit, as on a machine with version managers; python3.12 does.
    tools = tmp_path / "bin"
    for name in ("python3", "python3.13"):
        stub(tools, name, "exit 1")
    stub(tools, "python3.12", f'echo found >&2; exec "{sys.executable}" "$@"')
    (project / "requirements.lock").unlink()  # so that it stops right after the choice

    result = set_up(project, PYTHON="", PATH=f"{tools}:{os.environ['PATH']}")

    assert "found" in result.stderr


def test_only_torch_and_what_its_cuda_build_needs_are_left_out():
    """The part of the lock that is still checked when torch comes from another index."""
    script = 'eval "$(sed -n "/^without_torch/,/^}/p" scripts/setup.sh)"; without_torch'
    kept = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lock = (ROOT / "requirements.lock").read_text()

    def names(text: str) -> set[str]:
        return set(re.findall(r"(?m)^([a-z0-9-]+)==", text))

    dropped = names(lock) - names(kept)
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13", "cuda-toolkit"} <= dropped
    assert {name for name in dropped if not name.startswith(("nvidia-", "cuda-"))} == {"torch", "torchvision", "triton"}
    assert "torchmetrics" in names(kept)
    assert len(re.findall(r"(?m)^    --hash", kept)) < len(re.findall(r"(?m)^    --hash", lock))
