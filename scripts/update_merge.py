"""The merge of scripts/update.py: both versions under the owner's name, his files three ways, the locks by packages."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from update_git import ALONE, RECORD, REFUSED, Files, Git, StopError, call

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ("src/trainyard/", "tests/trainyard/")
"""Replaced as a whole."""
PAGES = ("docs/", "benchmarks/")
"""The library's as well, but a file of the owner's may lie beside ours."""
SCHEMA = "configs/schema.json"
"""Made by a command of the library, of its keys and the owner's: two versions of it aren't merged by lines."""
TESTS = "trainyard (src/trainyard/pyproject.toml:test)"
"""For whom a lock has what the library's tests need."""
SHOWN = 20
"""Names in one message."""


@dataclass
class Report:
    """What the owner is told at the end, and what of it he has to decide."""

    lines: list[str] = field(default_factory=list)
    code: int = 0

    def tell(self, what: str, name: str, why: str = "") -> None:
        self.lines.append(f"  {what:<10}{name}{why and f'  ({why})'}")

    def ask(self, what: str, name: str, why: str = "") -> None:
        self.tell(what, name, why)
        self.code = REFUSED


@dataclass(frozen=True)
class Owner:
    """The clone as it is committed: its files, its name, and what it records of the library."""

    git: Git
    head: str
    files: Files
    name: str
    record: dict[str, str]
    block: str
    """The record as it is written."""

    @property
    def has_wheel(self) -> bool:
        """Whether the library is pinned as a wheel by scripts/vendor.sh, and has no folder here."""
        return "wheel" in self.record

    def block_of(self, tag: str, tree: str, source: str) -> str:
        """The record with another version of the library; that of a pin is moved with it, by scripts/vendor.sh."""
        block = self.block
        if source:
            block = re.sub("(?m)^version = .*", lambda line: f"{line[0]}\nsource = {json.dumps(source)}", block)
        if self.has_wheel:
            return block
        block = re.sub(r'(?m)^version = ".*"', f'version = "{tag.removeprefix("v")}"', block)
        return re.sub(r'(?m)^tree = ".*"', f'tree = "{tree}"', block)

    @classmethod
    def read(cls) -> Owner:
        """Raises: StopError: there is nothing to update here, or not now."""
        git = Git(ROOT)
        if (found := [int(number) for number in re.findall(r"\d+", git("version"))[:2]]) < [2, 38]:
            raise StopError(f"git is {found[0]}.{found[1]}, and merges without touching a file since 2.38; update it.")
        code, top, _ = git.run("rev-parse", "--show-toplevel")
        if code or git.run("rev-parse", "--verify", "--quiet", "HEAD")[0]:
            raise StopError("nothing is committed here: git init && git add --all && git commit -m Begin")
        if Path(top.rstrip("\n")).resolve() != ROOT:
            raise StopError(f"this is a folder of {top.strip()}: an update needs a repository of the project's own.")
        if git("status", "--porcelain", "--untracked-files=no"):
            raise StopError("there are uncommitted changes; commit or stash them first.")
        head = git.word("rev-parse", "HEAD")
        files = git.files(head)
        text = git.text(files["pyproject.toml"]) if "pyproject.toml" in files else ""
        try:
            project = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise StopError(f"pyproject.toml is no TOML ({error}): mend and commit it first.") from None
        record, block = project.get("tool", {}).get("trainyard"), RECORD.search(text)
        if not record or not block or not {"version", "tree", "package"} <= record.keys():
            raise StopError("there is no record of a version here; scripts/rename.sh NAME makes the clone yours first.")
        name = str(project["project"]["name"])
        name = name if name.replace("-", "_") == record["package"] else record["package"]
        return cls(git, head, files, name, record, block[0])


def is_in(path: str, folders: Sequence[str]) -> bool:
    return path.startswith(tuple(folders))


def is_lock(path: str) -> bool:
    return re.fullmatch(r"requirements[\w-]*\.lock", path) is not None


def renamed(scratch: Git, commit: str, owner: Owner, folder: Path, block: str) -> Files:
    """The files of a version as its own script renames them for this owner, with that record in pyproject.toml."""
    git = scratch.beside(folder)
    if RECORD.search(scratch("cat-file", "blob", f"{commit}:pyproject.toml")):
        raise StopError("the source has a renamed project, not Trainyard; say where that is: --from URL_OR_PATH")
    git.check_out(commit)
    done = call(sys.executable, "scripts/rename.py", owner.name, folder=folder, **ALONE)
    record = RECORD.search((folder / "pyproject.toml").read_text(encoding="utf-8"))
    if done.returncode or not record:
        why = done.stderr.strip() or "it is older than the record of a version in pyproject.toml; see docs/updating.md"
        raise StopError(f"that version can't take the name {owner.name}: {why}")
    git("add", "--all", "--force")
    files = scratch.files(git.word("write-tree"))
    text = RECORD.sub(lambda _: block, git.text(files["pyproject.toml"]))
    return {**files, "pyproject.toml": git.blob(text)}


def check_library(base: Files, owner: Owner) -> None:
    """Raises: StopError: the library's folders differ from those of the version that they are said to be."""
    paths = sorted(path for path in base.keys() | owner.files.keys() if is_in(path, LIBRARY))
    edited = [path for path in paths if base.get(path) != owner.files.get(path)]
    if edited:
        names = "\n".join(f"  {path}" for path in edited[:SHOWN])
        more = f"\n  and {len(edited) - SHOWN} more" if len(edited) > SHOWN else ""
        sentence = "the library was edited here; take that back, or have it merged with --keep-library:"
        raise StopError(f"{sentence}\n{names}{more}", REFUSED)


def sides(base: Files, owner: Owner, theirs: Files, keep_library: bool, report: Report) -> tuple[Files, Files, Files]:
    """What is merged by lines of each side: nothing that is made by a tool, no library unless the owner insists.

    Of the library's pages his edits are left out.
    """
    library = () if keep_library else LIBRARY
    ours, shipped = dict(owner.files), LIBRARY + PAGES
    if owner.has_wheel:
        base, theirs = (
            {path: what for path, what in files.items() if not is_in(path, shipped)} for files in (base, theirs)
        )
        library = ()
    for path in base.keys() & ours.keys():
        if is_in(path, PAGES) and ours[path] != base[path]:
            report.tell("replaced", path, "your edit of it is in git's history; the page is the library's")
            ours[path] = base[path]
    base, ours, theirs = (
        {path: what for path, what in files.items() if not (is_in(path, library) or is_lock(path) or path == SCHEMA)}
        for files in (base, ours, theirs)
    )
    return base, ours, theirs


@dataclass(frozen=True)
class Merged:
    """The files of a merge, and for each path in conflict what its sides are, by git's number of the stage."""

    files: Files
    conflicts: dict[str, dict[str, str]]


def merge(scratch: Git, trees: tuple[Files, Files, Files], tag: str, report: Report) -> Merged:
    """Three ways: files that were moved are followed, one that the owner deleted stays so."""
    base, ours, theirs = (scratch.tree(files) for files in trees)
    root = scratch.word("commit-tree", "-m", "base", base)
    for name, tree in (("yours", ours), (tag, theirs)):
        scratch("update-ref", f"refs/heads/{name}", scratch.word("commit-tree", "-m", name, "-p", root, tree))
    code, output, complaint = scratch.run("merge-tree", "--write-tree", "-z", "yours", tag)
    if code > 1:
        raise StopError(f"the merge failed: {' '.join(complaint.split())}", REFUSED)
    tree, *rest = output.split("\0")
    files, conflicts = scratch.files(tree), dict[str, dict[str, str]]()
    end = rest.index("") if code else 0
    for entry in rest[:end]:
        about, _, path = entry.partition("\t")
        mode, item, stage = about.split()
        conflicts.setdefault(path, {})[stage] = f"{mode} {item}"
    reasons = reasons_of(rest[end + 1 :])
    for path, stages in list(conflicts.items()):
        plain = path.removesuffix(f"~{tag}")  # where a folder, or a file of another type, has its name now
        if stages.keys() == {"1", "3"} and (plain == path or plain not in conflicts):
            del files[path], conflicts[path]
            report.tell("deleted", plain, f"by you, so it stays deleted; {tag} changed it")
        elif stages.keys() == {"1", "2"}:
            del conflicts[path]
            report.tell("kept", path, f"as you changed it; {tag} has it no more")
        else:
            report.ask("conflict", path, reasons.get(path, ""))
    return Merged(files, conflicts)


def reasons_of(messages: Sequence[str]) -> dict[str, str]:
    """What git says of a path in conflict, where it is no matter of lines; a message is a count, paths, kind, text."""
    reasons: dict[str, str] = {}
    while messages and messages[0]:
        count = int(messages[0])
        paths, (kind, text) = messages[1 : count + 1], messages[count + 1 : count + 3]
        if kind.startswith("CONFLICT") and kind != "CONFLICT (contents)":
            reasons |= dict.fromkeys(paths, text.partition(": ")[2].strip())
        messages = messages[count + 3 :]
    return reasons


def packages(lock: str) -> dict[str, str]:
    """What a lock says of each package."""
    said: dict[str, str] = {}
    for block in re.findall(r"(?m)^[\w.-].*\n(?:[ \t].*\n)*", lock):
        name = re.split(r"[^\w.-]", block, maxsplit=1)[0]
        said[name] = said.get(name, "") + block
    return said


def without_tests(lock: dict[str, str]) -> dict[str, str]:
    """Less what only the library's tests need: they aren't beside a pinned wheel, and scripts/lock.sh knows it."""
    needed_by = {name: set(re.findall(r"(?m)^ +# +(?:via\b *)?(.+)$", said)) for name, said in lock.items()}
    gone = {TESTS}
    while more := {name for name, users in needed_by.items() if users and users <= gone} - gone:
        gone |= more
    return {name: said for name, said in lock.items() if name not in gone}


def chosen(was: dict[str, str], his: dict[str, str]) -> dict[str, str | None]:
    """The packages that the owner has otherwise, or no more; comments name the project, and don't count."""
    bare = [{name: re.sub(r"(?m)^ *#.*\n", "", said) for name, said in lock.items()} for lock in (was, his)]
    return {name: his.get(name) for name in was.keys() | his.keys() if bare[0].get(name) != bare[1].get(name)}


def merge_locks(scratch: Git, base: Files, owner: Owner, theirs: Files) -> tuple[Files, list[str]]:
    """The locks, and which of them have to be solved anew: those in which the owner has packages of his own choice.

    Package by package, so that what is solved starts from versions that were tested, and is of use if it can't be.
    """
    locks, edited = dict[str, str](), list[str]()
    for path in filter(is_lock, theirs.keys() | owner.files.keys()):
        sides = [files.get(path) for files in (base, owner.files, theirs)]
        if None in sides[1:]:  # on one side alone: new there, or deleted on the other
            locks |= {path: sides[1] or sides[2] or ""} if sides[0] is None else {}
            continue
        texts = [scratch.text(what) if what else "" for what in sides]
        was, his, new = (packages(text) for text in texts)
        if owner.has_wheel:
            was, his, new = (without_tests(lock) for lock in (was, his, new))
        own = chosen(was, his)
        if was == new:
            locks[path] = owner.files[path]
            continue
        if not own and new == packages(texts[2]):  # nothing is left out
            locks[path] = theirs[path]
            continue
        header = "".join(re.findall(r"\A(?:#.*\n)*", texts[2]))
        if own:
            header = "# Merged package by package by scripts/update.sh; scripts/lock.sh solves it anew.\n"
            edited.append(path)
        merged = {name: said for name, said in (new | own).items() if said is not None}
        locks[path] = scratch.blob(header + "".join(merged[name] for name in sorted(merged)))
    return locks, edited


def merge_schema(base: Files, owner: Owner, theirs: Files) -> tuple[Files, bool]:
    """The schema of the side that has another one, and whether both have: then it is made, of the merged files."""
    was, his, new = (files.get(SCHEMA) for files in (base, owner.files, theirs))
    taken = new if his == was else his
    return {SCHEMA: taken} if taken else {}, None not in (his, new) and len({was, his, new}) == 3


def solve_locks(git: Git, files: Files, edited: list[str], reason: str, report: Report) -> Files:
    """The locks as the merged project's own script solves them anew, unless there is a reason not to."""
    if not edited:
        return {}
    if not reason:
        done = call("bash", "scripts/lock.sh", folder=git.folder)
        reason = (done.stderr.strip().splitlines() or ["scripts/lock.sh failed"])[-1] if done.returncode else ""
    if reason:
        why = f"merged package by package, not solved anew: {reason}; then: scripts/lock.sh"
        report.ask("to do", ", ".join(sorted(edited)), why)
        return {}
    return {path: git.blob(read(git.folder / path)) for path in files if is_lock(path)}


def read(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")
