"""A project holds names, which are read when they are needed: here, all of them, so that no slip waits until then."""

from __future__ import annotations

import pytest

from trainyard.base.project import require_project

PROJECT = require_project()


@pytest.mark.parametrize("name", list(PROJECT.names()))
def test_what_a_name_stands_for_is_there(name: str) -> None:
    assert callable(PROJECT.resolve(name))
