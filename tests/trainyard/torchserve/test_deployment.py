"""An installed package has the files that are deployed, or says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.torchserve import deployment


def test_a_package_without_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert deployment.deployment_file("handler.py").is_file()
    monkeypatch.setattr(deployment, "FOLDERS", (tmp_path,))

    with pytest.raises(UsageError, match="handler.py isn't there.*run it from a clone"):
        deployment.deployment_file("handler.py")
