"""Which project is found: the one that the environment names, or the one that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[3] / "src" / "trainyard"
FIND = """
from trainyard.base.errors import UsageError
from trainyard.base.project import find_project
try:
    found = find_project()
    print(found and found.package)
except UsageError as error:
    print(error.exit_code, error)
"""


def install(folder: Path, *names: str) -> None:
    """Installs projects as pip does: a package, and a folder that tells of it; and the library, without a project."""
    (folder / "trainyard").symlink_to(LIBRARY)
    for name in names:
        facts = folder / f"{name}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[trainyard.project]\n{name} = {name}:project\n")
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("from trainyard import Project\n\nproject = Project(__name__)\n")


@pytest.mark.parametrize(
    ("installed", "named", "found"),
    [
        ([], None, "None"),
        (["shop"], None, "shop"),
        (["shop"], "", "shop"),
        (["shop", "bakery"], "bakery", "bakery"),
        (["shop", "bakery"], None, "2 several projects are installed here (bakery, shop): choose one by "
                                   "TRAINYARD_PROJECT=..., or remove one"),
        (["shop"], "nowhere", "2 the project nowhere can't be imported: run scripts/setup.sh, or set "
                              "TRAINYARD_PROJECT"),
    ],
)  # fmt: skip
def test_the_variable_and_then_the_one_that_is_installed(
    installed: list[str], named: str | None, found: str, tmp_path: Path
) -> None:
    install(tmp_path, *installed)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TRAINYARD_PROJECT": named or ""}
    if named is None:
        del environment["TRAINYARD_PROJECT"]
    # -S: without what is installed in the environment of the tests.
    done = subprocess.run(
        [sys.executable, "-S", "-c", FIND], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{found}\n"
