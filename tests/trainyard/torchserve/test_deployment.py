"""An installed package has the files that are deployed, or says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard.base.errors import UsageError
from trainyard.base.project import VARIABLE
from trainyard.torchserve import deployment


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an image has the files, for a library that no folder of them lies beside."""
    monkeypatch.setattr(deployment, "INSTALLED", tmp_path / "deployment")
    monkeypatch.setattr(deployment, "CHECKOUT", tmp_path / "none")
    return tmp_path / "deployment"


def test_a_package_without_the_folder_says_so(installed: Path) -> None:
    with pytest.raises(UsageError, match="handler.py isn't there.*run it from a clone"):
        deployment.deployment_file("handler.py")


def test_the_project_is_asked_where_nothing_is_installed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, own = tmp_path / "src" / "deployed_shop", tmp_path / "serving" / "handler.py"
    for file in (package / "__init__.py", own, installed / "metrics.yaml"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (package / "__init__.py").write_text("from trainyard.base.project import Project\nproject = Project(__name__)\n")
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.setenv(VARIABLE, package.name)

    assert deployment.deployment_file("handler.py") == own
    monkeypatch.setenv(VARIABLE, "not_there")  # what is installed is found without the project's code
    assert deployment.deployment_file("metrics.yaml") == installed / "metrics.yaml"
