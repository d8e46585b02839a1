"""Git for scripts/update.py: commands that fail with a sentence, and trees as the files that they hold.

Scripts that change a clone, vendor.py among them, also share how they stop, and where the record of the library stands.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ELSEWHERE = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
    *("GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"),
    *("GIT_DEFAULT_HASH", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
}
"""Variables that a hook of git's sets, and that would point at another repository."""
ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "XDG_CONFIG_HOME": os.devnull,
}
"""So that line ends, ignored files and markers of a merge don't depend on who makes it."""
BY = {f"GIT_{who}_{what}": "trainyard" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
USAGE, REFUSED = 2, 3
RECORD = re.compile(r"(?m)^\[tool\.trainyard\]\r?\n(?:\w+ = .*(?:\n|\Z))*")
"""In the root's pyproject.toml; an editor may have taken the last newline."""

Files = dict[str, str]
"""What a tree holds: of each path the mode and the object, as ``100644 2e65ef...``."""


class StopError(Exception):
    """Why nothing was done, in a sentence; with the exit code."""

    def __init__(self, sentence: str, code: int = USAGE) -> None:
        super().__init__(sentence)
        self.code = code


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | more


def call(*command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command of the project's, in a folder."""
    variables = environment(**more)
    return subprocess.run(
        command, check=False, cwd=folder, env=variables, capture_output=True, encoding="utf-8", errors="replace"
    )


@dataclass(frozen=True)
class Git:
    """Git in a folder; its bytes are kept as they are, names that aren't UTF-8 and line ends included."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Exit code, output and complaint."""
        command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false", *arguments]
        given_bytes, variables = given.encode(errors="surrogateescape"), environment(**self.variables)
        try:
            done = subprocess.run(
                command, check=False, cwd=self.folder, env=variables, input=given_bytes, capture_output=True
            )
        except FileNotFoundError:
            raise StopError("there is no git, which does the merge; install it.") from None
        return done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")

    def __call__(self, *arguments: str, given: str = "") -> str:
        """The output.

        Raises:
            StopError: it failed; has what git said.
        """
        code, output, complaint = self.run(*arguments, given=given)
        if code:
            raise StopError(f"git {arguments[0]} failed: {' '.join(complaint.split())}", REFUSED)
        return output

    def word(self, *arguments: str, given: str = "") -> str:
        return self(*arguments, given=given).rstrip("\n")

    def beside(self, folder: Path) -> Git:
        """The same repository, with the files of a folder and an index of their own."""
        folder.mkdir(exist_ok=True)
        more = {"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": f"{folder}.index"}
        return Git(folder, {**self.variables, **more})

    def files(self, tree: str) -> Files:
        entries = [entry.partition("\t") for entry in self("ls-tree", "-r", "-z", tree).split("\0") if entry]
        return {path: f"{mode} {item}" for about, _, path in entries for mode, _, item in [about.split()]}

    def tree(self, files: Files) -> str:
        """The reverse of ``files``, by an index that is not the clone's."""
        self("read-tree", "--empty")
        self("update-index", "-z", "--index-info", given="".join(f"{what}\t{path}\0" for path, what in files.items()))
        return self.word("write-tree")

    def text(self, what: str) -> str:
        return self("cat-file", "blob", what.rsplit(maxsplit=1)[-1])

    def blob(self, text: str, mode: str = "100644") -> str:
        return f"{mode} {self.word('hash-object', '-w', '--stdin', given=text)}"

    def check_out(self, tree: str) -> None:
        self("read-tree", tree)
        self("checkout-index", "--all", "--force")
