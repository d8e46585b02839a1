"""Loops of the toy project: a run takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import MakeLoop, loop_maker
from toy.train import Config, Task


@pytest.fixture
def make_loop(tmp_path: Path) -> MakeLoop:
    """See ``loops.loop_maker``."""
    return loop_maker(tmp_path, Config, {"kind": "cnn"}, lambda config, model, _: Task(model, config.optim))
