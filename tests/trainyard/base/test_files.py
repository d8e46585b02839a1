"""Atomic writing: old or new, never half."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trainyard.base.files import atomic_folder, atomic_write, sha256_file, write_json, write_text


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with pytest.raises(RuntimeError), atomic_folder(path) as folder:
        (folder / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []

    for content in ("one", "two"):
        with atomic_folder(path) as folder:
            (folder / "a").write_text(content)
        assert (path / "a").read_text() == content


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".bundle.99999.tmp").mkdir()

    with atomic_folder(tmp_path / "bundle"):
        pass

    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf_8_is_written_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")

    write_json(tmp_path / "a.json", {"where": name})
    write_text(tmp_path / "a.txt", name)

    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"where": name}
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9.jpg"


def test_lists_of_numbers_take_a_line_each(tmp_path: Path) -> None:
    value = {"confusion": [[1, 2], [3, -4.5e-07]], "names": ["a [\n1\n]", "b"], "none": [], "mixed": [1, "2"]}

    write_json(tmp_path / "a.json", value)

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert '"confusion": [\n    [1, 2],\n    [3, -4.5e-07]\n  ],' in text
    assert json.loads(text) == value


def test_the_hash_is_sha_256(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "abc")

    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea")
