"""The table: every format by its name, the project's among them, and no project's code for the library's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.formats import table
from trainyard.formats.table import LIBRARY, all_formats, exported_formats, find_format, parse_formats

FORMAT = """
from trainyard.formats.onnx import Onnx

class Own(Onnx):
    name = "own"
    file = "model.own"

class SameFile(Onnx.__base__):
    name = "same-file"
    file = "model.pt2"

    def make(self, source, file):
        pass

    def open(self, file, device=None, threads=None):
        raise NotImplementedError

class SameName(Onnx):
    name = "onnx"

not_a_format = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The package of a project with the formats that the test is parametrised with, else with ``own``."""
    formats = getattr(request, "param", {"own": ".mine:Own"})
    package = f"shop_{abs(hash(str(formats)))}"
    (tmp_path / package).mkdir()
    content = f"from trainyard.base.project import Project\nproject = Project(__name__, formats={formats})\n"
    (tmp_path / package / "__init__.py").write_text(content)
    (tmp_path / package / "mine.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TRAINYARD_PROJECT", package)
    return package


def test_every_format_goes_by_its_name_and_has_a_file() -> None:
    assert all(format.name == name for name, format in LIBRARY.items())
    assert next(iter(LIBRARY)) == "eager"
    assert all(format.file for name, format in LIBRARY.items() if name != "eager")
    assert all(format.baseline in LIBRARY for format in LIBRARY.values())


def test_a_project_adds_its_own_at_the_end(project: str) -> None:
    assert list(all_formats()) == [*LIBRARY, "own"]
    assert find_format("own").package == "onnxruntime"
    assert exported_formats(with_gpu=False)[-1] == "own"
    assert parse_formats("own, onnx") == ("onnx", "own")


def test_the_librarys_own_are_found_without_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_project() -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(table, "find_project", find_project)

    assert [find_format(name).name for name in LIBRARY] == list(LIBRARY)


@pytest.mark.parametrize(("name", "nearest"), [("onxx", "onnx"), ("onnx-int4", "onnx-int8"), ("owm", "own")])
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str, project: str) -> None:
    with pytest.raises(UsageError, match=f"there is no format {name}; the nearest is {nearest}$"):
        find_format(name)
    with pytest.raises(UsageError, match=f"--formats: there is no format {name}; the nearest is {nearest}$"):
        parse_formats(f"onnx,{name}")


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ({"own": ".nowhere:Own"}, "own can't be imported from .nowhere:Own"),
        ({"own": ".mine:Nothing"}, "own can't be imported from .mine:Nothing"),
        ({"other": ".mine:Own"}, ".mine:Own must be a subclass of Format with the name other"),
        ({"own": ".mine:not_a_format"}, "must be a subclass of Format"),
        ({"onnx": ".mine:SameName"}, "onnx is a format of the library: give yours another name"),
        ({"same-file": ".mine:SameFile"}, "aoti and same-file both write model.pt2: give yours another file"),
    ],
    indirect=["project"],
    ids=str,
)
def test_a_projects_wrong_format_is_told(project: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_format("anything")
    assert said in str(caught.value)
    assert project in str(caught.value)


def test_the_table_needs_no_framework() -> None:
    code = "import sys, trainyard.formats.table; print([name for name in ('torch', 'numpy', 'onnx', 'onnxruntime', " \
           "'torchao', 'pydantic') if name in sys.modules])"  # fmt: skip

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
