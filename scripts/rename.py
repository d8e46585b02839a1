"""Give the project a name of the owner's: see scripts/rename.sh. Needs no package: a fresh clone can run it.

Imports inside the owner's package are relative, so that its files stay as they are, and updates of them merge.
"""

from __future__ import annotations

import json
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = "my_project"
KEPT = ("src/trainyard/", "tests/trainyard/", "docs/", "benchmarks/", "scripts/rename.", "requirements")
"""How the paths begin of what no rename touches: it is the library's, or made by a tool."""
SHIPPED_TESTS = "tests/template"
"""What tests the owner's files as they are shipped, and would fail as soon as he changes them."""
# What packages of ours import under a name that the lock does not have, and the folders beside the package.
TAKEN = {"benchmarks", "configs", "deploy", "docs", "google", "model_archiver", "pil", "pkg_resources", "scripts",
         "serving", "sklearn", "src", "tests", "trainyard", "ts", "yaml"}  # fmt: skip
USAGE = 2

README = """# {title}

What it does, in a sentence or two: what goes in, which answers come out, and who uses them.

```bash
scripts/setup.sh                                  # once: the locked packages into .venv
scripts/train.sh configs/digits_resnet.yaml       # its last line is the run's folder
scripts/export.sh runs/digits_resnet/latest       # smaller and faster formats, each measured against the model
scripts/serve.sh runs/digits_resnet/latest        # answers over HTTP
scripts/test.sh                                   # lint, types, tests
```

`src/{package}/` is this project; `src/trainyard/` is the library that it stands on, which isn't edited here:
[what it can do](docs/trainyard.md), [how to contribute](CONTRIBUTING.md).
"""


class RefusedError(Exception):
    """The name or the tree is not fit for renaming; says why in one sentence."""


class Git:
    """Git in the project's folder; where no commit has the project (a zip), with a scratch repository beside it."""

    def __init__(self, scratch: str) -> None:
        self.environment = dict(os.environ)
        self.has_commit = not self._run("rev-parse", "--verify", "--quiet", "HEAD:./pyproject.toml").returncode
        if not self.has_commit:
            self.environment |= {"GIT_DIR": scratch, "GIT_WORK_TREE": str(ROOT)}
            self("init", "--quiet")
            self("add", "--all")

    def __call__(self, *arguments: str) -> str:
        """The output of a command, without the newline at its end."""
        result = self._run(*arguments)
        if result.returncode:
            raise RefusedError(f"git {arguments[0]} failed: {result.stderr.strip()}")
        return result.stdout.removesuffix("\n")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", *arguments], check=False, cwd=ROOT, env=self.environment, capture_output=True, text=True
            )
        except FileNotFoundError:
            raise RefusedError("there is no git, which lists the project's files; install it.") from None

    def origin(self) -> dict[str, str]:
        """Which library this is: its version, where the clone came from, and the id of its folder's tree.

        An update starts from the first two; the third tells whether the library was edited in the clone.
        """
        version = re.search(r'(?m)^VERSION = "(.*)"', (ROOT / "src/trainyard/base/version.py").read_text())
        assert version
        remote = self._run("remote", "get-url", "origin").stdout.strip()
        source = re.sub(r"(?<=//)[^/@]*@", "", remote)  # a user or a token is nobody else's business
        tree = ("rev-parse", "HEAD:./src/trainyard") if self.has_commit else ("write-tree", "--prefix=src/trainyard/")
        return {"version": version[1], "source": source, "tree": self(*tree)}


def package_name(name: str) -> str:
    """The package's name for a project's; refuses what can't be imported or hides another module."""
    package = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name):
        raise RefusedError(f"'{name}' can't name a package: use a-z, 0-9, and single _ or - between them.")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise RefusedError(f"'{name}' is a word of the Python language; choose another name.")
    if package in sys.stdlib_module_names:
        raise RefusedError(f"'{name}' would hide Python's own module {package}; choose another name.")
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    if package in TAKEN or package in {dependency.replace("-", "_") for dependency in locked}:
        raise RefusedError(f"'{name}' would hide the package {package}, which this project uses; choose another name.")
    return package


def renamed(text: str, old: str, new: str) -> str:
    """The text of a file with the package's name replaced; one of the owner's only where it can't be another word."""
    careful = (
        rf"(?m)(?<=^from ){old}\b|(?<=^import ){old}\b",
        rf"(?<=\bsrc/){old}\b",
        rf"(?<=[\"'`]){old}(?=[.:]\w)",  # a module path, as in "shop.task:Task"
    )
    for pattern in (rf"\b{old}\b",) if old == SHIPPED else careful:
        text = re.sub(pattern, new, text)
    return text


def renamed_pyproject(text: str, old: str, name: str, record: dict[str, str]) -> str:
    """As ``renamed``, with the name of the distribution, and the record that makes this a project of its own."""
    new = record["package"]
    text = re.sub(r'(?m)^name = ".*"$', f'name = "{name}"', text, count=1)
    text = re.sub(rf'(?m)^{old}(?= = "{old}:)|(?<="){old}(?="[,\]])', new, text)
    text = re.sub(r"\n\[tool\.trainyard\]\n(\w+ = .*\n)*", "", renamed(text, old, new)).rstrip()
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in record.items() if value]
    return f"{text}\n\n[tool.trainyard]\n{''.join(lines)}"


def move_pages(package: str) -> None:
    """Our README and CHANGELOG become pages of the library's; the owner writes his own, and no update meets them."""
    readme, changelog = ROOT / "README.md", ROOT / "CHANGELOG.md"
    if changelog.exists():
        changelog.rename(ROOT / "docs/changelog.md")
    page = re.sub(r"\]\((?!\w+:|#)", "](../", readme.read_text()).replace("](../docs/", "](")
    (ROOT / "docs/trainyard.md").write_text(page)
    readme.write_text(README.format(title=package.replace("_", " ").capitalize(), package=package))


def rewrite(path: Path, old: str, new: str) -> None:
    """Rename inside one file. What is not text stays as it is, and so does a link."""
    if path.is_symlink() or not path.is_file():
        return
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return
    path.write_bytes(renamed(text, old, new).encode())


def rename(name: str) -> str:
    """Rename what is the owner's; returns what to tell the user."""
    package = package_name(name)
    pyproject = ROOT / "pyproject.toml"
    earlier: dict[str, str] = tomllib.loads(pyproject.read_text())["tool"].get("trainyard", {})
    old = earlier.get("package", SHIPPED)
    if package == old:
        return f"The project is already called {name}: nothing to do."
    with tempfile.TemporaryDirectory() as scratch:
        git = Git(scratch)
        if git.has_commit and git("status", "--porcelain", "--", "."):
            raise RefusedError("there are uncommitted changes; commit or stash them first.")
        record = {**(earlier or git.origin()), "package": package}
        files = [ROOT / file for file in git("ls-files", "-z").split("\0") if not file.startswith(KEPT)]
        if not earlier:
            move_pages(package)
            shutil.rmtree(ROOT / SHIPPED_TESTS, ignore_errors=True)
            (ROOT / "scripts/release.sh").unlink(missing_ok=True)  # it releases Trainyard
        pyproject.write_text(renamed_pyproject(pyproject.read_text(), old, name, record))
        for file in files:
            rewrite(file, old, package)
        (ROOT / "src" / old).rename(ROOT / "src" / package)
        if git.has_commit:
            git("add", "--all", "--", ".")
    committed = f"git commit -m 'Rename the project to {name}' && " if git.has_commit else ""
    return f"The project is called {name} now, its package src/{package}. Next: {committed}scripts/setup.sh"


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("Usage: scripts/rename.sh my_shop", file=sys.stderr)
        return USAGE
    try:
        print(rename(arguments[0]))
    except RefusedError as refusal:
        print(f"rename: {refusal}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
