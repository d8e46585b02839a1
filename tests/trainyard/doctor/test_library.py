"""The doctor's row on the library's folder, in small repositories."""

from __future__ import annotations

from pathlib import Path

import pytest
from clones import commit, git

from trainyard.doctor.library import check_library


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library's folder in a repository that has recorded it."""
    folder = tmp_path / "src" / "trainyard"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("1\n")
    (folder / "two.py").write_text("2\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    commit(tmp_path, "All")
    tree = git("rev-parse", "HEAD:src/trainyard", cwd=tmp_path).strip()
    (tmp_path / "pyproject.toml").write_text(f'[tool.trainyard]\nversion = "9.0.0"\ntree = "{tree}"\n')
    commit(tmp_path, "Record")
    return folder


def test_as_recorded(library: Path) -> None:
    (library / "__pycache__").mkdir()
    (library / "__pycache__" / "one.pyc").write_text("")
    (library.parent / "shop.py").write_text("the owner's\n")
    [check] = check_library(library)
    assert (check.status, check.detail) == ("ok", "trainyard 9.0.0, as it was recorded")


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_edit_is_named(is_committed: bool, library: Path) -> None:
    (library / "one.py").write_text("11\n")
    (library / "two.py").unlink()
    (library / "é 3.py").write_text("3\n")
    if is_committed:
        commit(library.parents[1], "Edit")
    status = git("status", "--porcelain", cwd=library)

    [check] = check_library(library)

    names = "src/trainyard/one.py, src/trainyard/two.py, src/trainyard/é 3.py"
    assert (check.status, check.detail) == ("warning", f"edited since 9.0.0: {names}")
    assert git("status", "--porcelain", cwd=library) == status


def test_a_library_that_was_edited_before_the_first_commit(library: Path) -> None:
    pyproject = library.parents[1] / "pyproject.toml"
    pyproject.write_text(f'[tool.trainyard]\nversion = "9.0.0"\ntree = "{"1" * 40}"\n')
    assert [check.status for check in check_library(library)] == ["warning"]


def test_no_row_where_nothing_is_recorded(library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pyproject = library.parents[1] / "pyproject.toml"
    recorded = pyproject.read_text()
    for text in ("", "[tool", f'{recorded}wheel = "vendor/trainyard.whl"\n'):
        pyproject.write_text(text)
        assert check_library(library) == []
    pyproject.write_text(recorded)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert check_library(library) == []
