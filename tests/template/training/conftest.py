"""Loops of the owner's project as shipped: a run takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import CLASSES, MakeLoop, loop_maker

from my_project.train import Config, make_task


@pytest.fixture
def make_loop(tmp_path: Path) -> MakeLoop:
    """See ``loops.loop_maker``."""
    return loop_maker(tmp_path, Config, {"kind": "resnet"}, lambda *task: make_task(*task, len(CLASSES)))
