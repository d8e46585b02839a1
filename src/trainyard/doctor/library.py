"""Check of the library's folder in a clone: an edit there stands in the way of the next update."""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
from pathlib import Path

from trainyard.doctor.checks import Check

LIBRARY = Path(__file__).resolve().parents[1]
SHOWN = 5
"""Files named in the row."""


def check_library(library: Path = LIBRARY) -> list[Check]:
    """Whether the folder is the recorded version, files that aren't committed included.

    No row where there is nothing to compare: an installed wheel, a clone that wasn't renamed, no git.
    """
    root = library.parents[1]
    try:
        record = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["trainyard"]
        version, tree = record["version"], record["tree"]
    except (OSError, ValueError, KeyError):
        return []
    if "wheel" in record:
        return []
    try:
        changed = _changed(root, library, tree)
    except (OSError, subprocess.CalledProcessError):
        return []
    if not changed:
        return [Check("library", "ok", f"{library.name} {version}, as it was recorded")]
    more = ", ..." if len(changed) > SHOWN else ""
    fix = "take it back, and change what you need in your package; else scripts/update.sh --keep-library merges it"
    return [Check("library", "warning", f"edited since {version}: {', '.join(changed[:SHOWN])}{more}", fix)]


def _changed(root: Path, library: Path, tree: str) -> list[str]:
    """The files that differ from a tree of git's, with an index of their own: that of the clone isn't touched."""
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        variables = kept | {"GIT_INDEX_FILE": f"{folder}/index", "GIT_WORK_TREE": str(library)}

        def git(*arguments: str, **more: str) -> str:
            rules = (f"core.excludesFile={root / '.gitignore'}", f"core.attributesFile={root / '.gitattributes'}")
            command = ["git", *(word for rule in rules for word in ("-c", rule)), *arguments]
            done = subprocess.run(command, cwd=library, env={**variables, **more}, capture_output=True, check=True)
            return done.stdout.decode(errors="surrogateescape")

        variables["GIT_DIR"] = git("rev-parse", "--absolute-git-dir", GIT_WORK_TREE=str(root)).rstrip("\n")
        try:
            git("read-tree", tree)
        except subprocess.CalledProcessError:  # never committed as it was
            return [str(library.relative_to(root))]
        listed = git("status", "--porcelain", "--no-renames", "--untracked-files=all", "-z", "--", ".").split("\0")
        return [f"{library.relative_to(root)}/{entry[3:]}" for entry in listed if entry[1:2].strip()]
