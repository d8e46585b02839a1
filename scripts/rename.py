"""Give the project a name of the user's own: see scripts/rename.sh. Needs no package: a fresh clone can run it."""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "train" + "yard"  # in two pieces, so that the renaming leaves this line as it is
VERBS = "archive|benchmark|config|doctor|evaluate|export|loadtest|predict|ready|rollout|serve|train"
# What packages of ours import under a name that the lock does not have, and the folders beside the package.
TAKEN = {"configs", "docs", "google", "model_archiver", "pil", "pkg_resources", "sklearn", "src", "tests", "ts", "yaml"}
USAGE = 2


class RefusedError(Exception):
    """The name or the tree is not fit for renaming; says why in one sentence."""


def git(*arguments: str) -> str:
    """The output of a git command in the project's folder."""
    result = subprocess.run(["git", *arguments], check=False, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise RefusedError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout


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


def renamed(text: str, name: str) -> str:
    """The text of a file, or a path, with each spelling of the template's name replaced."""
    package = name.replace("-", "_")
    camel = "".join(word.capitalize() for word in package.split("_"))
    title = " ".join(word.capitalize() for word in package.split("_"))
    old, old_camel = re.escape(TEMPLATE), re.escape(TEMPLATE.capitalize())
    for pattern, replacement in (
        # The command, which may have a hyphen: before a verb or an option, in bin/, and where it is declared.
        (rf"(?<!-m )\b{old}(?=[ \t]+(?:{VERBS}|--\w+)\b)", name),
        (rf"(?<=bin/){old}\b(?!/)", name),
        (rf'(?m)^(name = "){old}(?=")', rf"\g<1>{name}"),
        (rf'(?m)^{old}(?= = "{old}\.cli:)', name),
        (rf"\b{old}(?=\[\w+)", name),
        (rf"(?m)^(# +){old_camel}\b", rf"\g<1>{title}"),  # a page's title
        (old_camel, camel),
        (TEMPLATE.upper(), package.upper()),
        (old, package),
    ):
        text = re.sub(pattern, replacement, text)
    return text


def rename(name: str) -> str:
    """Rename everything that git tracks; returns what to tell the user."""
    package = package_name(name)
    if not (ROOT / "src" / TEMPLATE).is_dir():
        if (ROOT / "src" / package).is_dir():
            return f"The project is already called {name}: nothing to do."
        raise RefusedError("this project has a name of its own already; renaming works once, on a fresh clone.")
    if git("status", "--porcelain"):
        raise RefusedError("there are uncommitted changes; commit or stash them, the renaming is a change of its own.")

    changed = 0
    for relative in git("ls-files", "-z").split("\0"):
        path = ROOT / relative
        if not relative or path.is_symlink() or not path.is_file():
            continue
        changed += rewrite(path, name)
    # Folders first, so that a file inside is looked up where it is by then.
    tracked = {part for relative in git("ls-files", "-z").split("\0") for part in (relative, *folders(relative))}
    for relative in sorted(tracked, key=lambda entry: entry.count("/")):
        leaf = relative.rpartition("/")[2]
        if TEMPLATE in leaf.lower():
            parent = renamed(relative.rpartition("/")[0], package)
            git("mv", f"{parent}/{leaf}".lstrip("/"), renamed(relative, package))
    git("add", "--update")
    return (
        f"The project is called {name} now, its package {package} ({changed} files). Next:\n"
        "  scripts/setup.sh && .venv/bin/ruff check --fix . && .venv/bin/ruff format .\n"
        f"  git diff --staged --stat && git commit -am 'Rename the project to {name}'"
    )


def rewrite(path: Path, name: str) -> bool:
    """Rename inside one file; true when that changed it. A file that is not text stays as it is."""
    content = path.read_bytes()
    if TEMPLATE.encode() not in content.lower():
        return False
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return False
    path.write_bytes(renamed(text, name).encode())
    return True


def folders(relative: str) -> list[str]:
    """The folders above a file, as paths relative to the root."""
    return [str(parent) for parent in Path(relative).parents if str(parent) != "."]


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("Usage: scripts/rename.sh my_project", file=sys.stderr)
        return USAGE
    try:
        print(rename(arguments[0]))
    except RefusedError as refusal:
        print(f"rename: {refusal}", file=sys.stderr)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
