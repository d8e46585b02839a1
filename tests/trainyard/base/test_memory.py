"""Memory of the machine and of a container, as Linux tells them in files."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trainyard.base.memory import Memory, memory


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the limits stand; the machine has 8 of 10 GB free."""
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=8 * 10**9, total=10 * 10**9))
    monkeypatch.setattr("trainyard.base.memory.CGROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    return tmp_path


def test_without_a_container_it_is_the_machines(cgroups: Path) -> None:
    assert memory() == Memory(8 * 10**9, 10 * 10**9)
    (cgroups / "memory.max").write_text("max\n")
    assert memory() == Memory(8 * 10**9, 10 * 10**9)


@pytest.mark.parametrize(
    ("limit", "usage", "cache"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_has_what_its_limit_leaves(cgroups: Path, limit: str, usage: str, cache: str) -> None:
    (cgroups / limit).write_text("500\n")
    assert memory() == Memory(500, 500)

    (cgroups / usage).write_text("400\n")
    assert memory() == Memory(100, 500)

    (cgroups / limit).with_name("memory.stat").write_text(f"anon 100\n{cache} 300\n")
    assert memory() == Memory(400, 500), "files that were read are no reason to be killed"


def test_a_container_may_be_larger_than_what_the_machine_has_free(cgroups: Path) -> None:
    (cgroups / "memory.max").write_text(f"{9 * 10**9}\n")

    assert memory() == Memory(8 * 10**9, 9 * 10**9)
