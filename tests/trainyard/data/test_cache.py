"""Arrays that are read into memory where it has room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainyard.data.cache import load_array


@pytest.mark.parametrize(("limit", "mapped"), [("8000", True), ("80000", False)])
def test_a_small_container_maps_what_a_large_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, mapped: bool
) -> None:
    monkeypatch.setattr("trainyard.base.memory.CGROUPS", tmp_path)
    (tmp_path / "memory.max").write_text(limit)
    np.save(tmp_path / "a.npy", np.arange(1000))

    array = load_array(tmp_path / "a.npy")

    assert isinstance(array, np.memmap) == mapped
    assert array.sum() == 499500
