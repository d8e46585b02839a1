"""Bring a newer Trainyard into a renamed clone: see scripts/update.sh. Needs no package: the environment may be stale.

Each version is renamed by its own script before anything is compared, so that a name is no difference. All is done in a
scratch repository, which reads the clone's objects; the clone itself is touched in one step, when everything is known.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from update_git import ALONE, BY, REFUSED, Files, Git, StopError, call, environment
from update_merge import (
    LIBRARY,
    ROOT,
    SCHEMA,
    SHOWN,
    Merged,
    Owner,
    Report,
    check_library,
    is_in,
    merge,
    merge_locks,
    merge_schema,
    read,
    renamed,
    sides,
    solve_locks,
)

RELEASE = re.compile(r"refs/tags/v(\d+)\.(\d+)\.(\d+)$")
PYTHON = ROOT / ".venv/bin/python"
HASHES = {40: "sha1", 64: "sha256"}
"""Git's kinds of repositories, by the length of an object's name."""
QUIETLY = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")


@dataclass(frozen=True)
class Source:
    """Where Trainyard's versions come from; what is fetched stays in the scratch repository, but for the objects."""

    git: Git
    address: str
    tags: dict[str, tuple[int, ...]]
    """The releases; the others, such as a candidate, are taken by name only."""
    to_record: str
    """The address, where the owner's record has none and it is one for others, too; without a user or a token in it."""

    @classmethod
    def find(cls, owner: Owner, scratch: Git, address: str | None) -> Source:
        """The place that was given, or the recorded one; a path is made absolute."""
        if address is None:
            address = owner.record.get("source", "")
            address = str(ROOT / address) if (ROOT / address).exists() else address
        elif Path(address).exists():
            address = str(Path(address).resolve())
        if not address or address == str(ROOT):
            raise StopError("no source is recorded; say where Trainyard is: scripts/update.sh --from URL_OR_PATH")
        code, listed, complaint = owner.git.run("ls-remote", "--refs", "--tags", "--", address)
        if code:
            raise StopError(f"{address} can't be read, give another one by --from: {' '.join(complaint.split())}")
        kind, own = (HASHES[len(name.split("\t")[0])] for name in (listed or owner.head, owner.head))
        if kind != own:
            way = f"git init --object-format={kind} ../NEW && git fast-export --all | git -C ../NEW fast-import"
            raise StopError(
                f"{address} is of {kind}, and this repository of {own}: git can't merge; take it over: {way}"
            )
        matches = {name.rpartition("/")[2]: RELEASE.search(name) for name in listed.split() if "/" in name}
        tags = {name: tuple(map(int, match.groups())) if match else () for name, match in matches.items()}
        is_for_all = not owner.record.get("source") and not address.startswith("/")
        return cls(scratch, address, tags, re.sub(r"(?<=//)[^/@]*@", "", address) if is_for_all else "")

    def choose(self, version: str | None) -> str:
        """The tag of a version, or of the newest release."""
        releases = [tag for tag, numbers in self.tags.items() if numbers]
        if version is None and releases:
            return max(releases, key=lambda tag: self.tags[tag])
        tag = f"v{(version or '').removeprefix('v')}"
        if tag in self.tags:
            return tag
        known = ", ".join(sorted(releases, key=lambda tag: self.tags[tag])[-SHOWN:]) or "no version at all"
        raise StopError(
            f"{self.address} has {known}{(version and f', but no {tag}') or ''}; choose one, or use --from."
        )

    def fetch(self, *refs: str, depth: int = 1) -> None:
        git = Git(self.git.folder, {"GIT_DIR": self.git.variables["GIT_DIR"]})  # with what he has set for the network
        git("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", f"--depth={depth}", "--", self.address, *refs)

    def fetch_tag(self, tag: str) -> str:
        """The commit of a tag."""
        self.fetch(f"+refs/tags/{tag}:refs/source/{tag}")
        return self.git.word("rev-parse", f"refs/source/{tag}^{{commit}}")

    def base(self, owner: Owner) -> str:
        """The commit that the clone was made from: of the recorded version, or between two, by the library's tree."""
        tag, tree = f"v{owner.record['version']}", owner.record["tree"]
        if tag in self.tags:
            commit = self.fetch_tag(tag)
            if self.git.run("rev-parse", f"{commit}:src/trainyard")[1].strip() == tree or len(tree) != len(commit):
                return commit  # of another length it is of a repository with other hashes, and says nothing here
        self.fetch("+refs/heads/*:refs/source/heads/*", "+refs/tags/*:refs/source/*", depth=2**31 - 1)
        commits = self.git("rev-list", "--all", "--date-order").split()
        asked = "".join(f"{commit}:src/trainyard\n" for commit in commits)
        found = self.git("cat-file", "--batch-check=%(objectname)", given=asked).splitlines()
        same = [commit for commit, library in zip(commits, found, strict=True) if library == tree]
        if not same:
            raise StopError(f"{self.address} has no commit with the library that is recorded here ({tree[:12]}).")
        known = set(owner.git("rev-list", "HEAD").split())
        return next((commit for commit in same if commit in known), same[0])


def migrate(git: Git, owner: Owner, merged: Merged, configs: list[str], report: Report) -> Files:
    """The configs whose renamed keys the new library's own table moves, if the environment of the clone can run it."""
    clean = [path for path in configs if path not in merged.conflicts and merged.files[path].startswith("100")]
    reason = "markers are in the way" if merged.conflicts.keys() & set(configs) else ""
    if owner.has_wheel or not PYTHON.is_file():
        clean, reason = [], "the new library isn't installed yet"
    if clean:
        command = (str(PYTHON), "-m", "trainyard", "config", "--migrate", *clean)
        done = call(*command, folder=git.folder, PYTHONPATH=str(git.folder / "src"))
        for line in done.stdout.splitlines():
            report.tell("migrated", line)
        if done.returncode == REFUSED:
            report.ask("to do", "configs", done.stderr.strip())
        elif done.returncode:
            clean, reason = [], "the new library can't run in this .venv"
    if reason:
        report.tell("to do", "configs", f"{reason}; after scripts/setup.sh: trainyard config --migrate configs/*.yaml")
    return {path: git.blob(read(git.folder / path), merged.files[path].split()[0]) for path in clean}


def remake_schema(git: Git, owner: Owner, report: Report) -> Files:
    """The schema as the merged project's own command writes it; none where the environment can't run it yet."""
    reason = "the new library isn't installed yet"
    if PYTHON.is_file() and not owner.has_wheel:
        command = (str(PYTHON), "-m", "trainyard", "config", "--schema")
        done = call(*command, folder=git.folder, PYTHONPATH=str(git.folder / "src"))
        if not done.returncode:
            return {SCHEMA: git.blob(done.stdout)}
        reason = "the merged project can't run in this .venv"
    report.tell("to do", SCHEMA, f"yours stays, {reason}; after scripts/setup.sh: trainyard config --schema > {SCHEMA}")
    return {}


def in_the_way(owner: Owner, files: Files) -> list[str]:
    """What lies where a new file comes: git would spare it, but for a file that is ignored."""
    found = set[str]()
    for path in files.keys() - owner.files.keys():
        for place in (Path(path), *Path(path).parents[:-1]):
            name, there = place.as_posix(), ROOT / place
            is_folder = there.is_dir() and not there.is_symlink()
            if name == path and is_folder:  # a folder that becomes a file
                known = any(one.startswith(f"{path}/") for one in owner.files)
            else:
                known = is_folder or name in owner.files
            if os.path.lexists(there) and not known:
                found.add(name)
    return sorted(found)


def apply(owner: Owner, merged: Merged, scratch: Path) -> None:
    """Brings the result into the clone and its index, unless a file is in the way that git doesn't know."""
    commit = Git(ROOT, {"GIT_DIR": str(scratch)}).word("rev-parse", "refs/heads/result")
    owner.git("fetch", *QUIETLY, str(scratch), "refs/heads/result")
    if found := in_the_way(owner, merged.files):
        raise StopError(f"files that git doesn't know are in the way; move them: {', '.join(found[:SHOWN])}", REFUSED)
    nothing = f"0 {'0' * len(owner.head)} 0"
    stages = [
        line
        for path, sides in merged.conflicts.items()
        for line in (f"{nothing}\t{path}", *(f"{what} {stage}\t{path}" for stage, what in sides.items()))
    ]
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        owner.git("read-tree", "-m", "-u", "--no-recurse-submodules", owner.head, commit)
        owner.git("update-index", "-z", "--index-info", given="".join(f"{line}\0" for line in stages))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def move_pin(owner: Owner, source: Source, tag: str, report: Report) -> None:
    """Has scripts/vendor.sh build the library's wheel of the new version, in a clone that has no folder of it."""
    ref = f"refs/trainyard/{tag}"
    owner.git("fetch", *QUIETLY, "--", source.address, f"+refs/tags/{tag}:{ref}")
    command = ["bash", "scripts/vendor.sh", "pin", ref]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        report.ask("to do", "the pin", f"it could not be moved; then: {' '.join(command[1:])}")
    else:
        owner.git("update-ref", "-d", ref)


def news(changelog: str, old: str, new: str) -> str:
    """The sections of a changelog behind one version, up to and with another; none on the way back."""
    sections = re.split(r"(?m)^(?=## \[)", changelog)[1:]
    names = [section[4:].partition("]")[0] for section in sections]
    if new not in names or old not in names:
        return ""
    return "".join(sections[names.index(new) : names.index(old)]).rstrip()


def merge_all(owner: Owner, source: Source, tag: str, keep_library: bool, report: Report) -> Merged:
    """All of the update, in the scratch repository, whose branch ``result`` has the files."""
    scratch, work = source.git, source.git.folder
    commit, base_commit = source.fetch_tag(tag), source.base(owner)
    # Not before all is fetched: the clone may be shallow, and git would miss what lies behind its first commit.
    objects = owner.git.word("rev-parse", "--path-format=absolute", "--git-path", "objects")
    (work / "git/objects/info/alternates").write_text(f"{objects}\n")
    block = owner.block_of(tag, scratch.word("rev-parse", f"{commit}:src/trainyard"), source.to_record)
    base = renamed(scratch, base_commit, owner, work / "old", owner.block)
    theirs = renamed(scratch, commit, owner, work / "new", block)
    if not keep_library and not owner.has_wheel:
        check_library(base, owner)
    merged = merge(scratch, sides(base, owner, theirs, keep_library, report), tag, report)
    if not keep_library and not owner.has_wheel:
        merged.files.update({path: what for path, what in theirs.items() if is_in(path, LIBRARY)})
    locks, edited = merge_locks(scratch, base, owner, theirs)
    schema, is_stale = merge_schema(base, owner, theirs)
    merged.files.update(locks | schema)
    complete(scratch.beside(work / "final"), owner, merged, edited, is_stale, report)
    if source.to_record:
        report.tell("recorded", source.to_record, "as the source of later updates")
    result = scratch.tree(merged.files)
    scratch("update-ref", "refs/heads/result", scratch.word("commit-tree", "-m", tag, "-p", tag, result))
    return merged


def complete(git: Git, owner: Owner, merged: Merged, edited: list[str], is_stale: bool, report: Report) -> None:
    """Has the merged project's own tools move renamed keys of configs, make the schema, and solve the merged locks."""
    if edited or PYTHON.is_file():
        needed = re.compile(r"(src|configs|scripts)/.*|[^/]+\.(toml|lock|md)")
        git.check_out(git.tree({path: what for path, what in merged.files.items() if needed.fullmatch(path)}))
    configs = [path for path in merged.files if re.fullmatch(r"configs/[^/]+\.ya?ml", path)]
    merged.files.update(migrate(git, owner, merged, configs, report))
    if is_stale:
        merged.files.update(remake_schema(git, owner, report))
    reason = "pyproject.toml is in conflict" if "pyproject.toml" in merged.conflicts else ""
    reason = "the pin moves first" if owner.has_wheel else reason
    merged.files.update(solve_locks(git, merged.files, edited, reason, report))


def update(version: str | None, address: str | None, keep_library: bool) -> int:
    """Brings a version into the clone, staged, and says what is new; returns the exit code."""
    owner, report = Owner.read(), Report()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        scratch = Git(work, {**ALONE, **BY, "GIT_DIR": str(work / "git"), "GIT_INDEX_FILE": str(work / "index")})
        scratch("init", "--quiet", "--bare", f"--object-format={owner.git.word('rev-parse', '--show-object-format')}")
        source = Source.find(owner, scratch, address)
        tag, old = source.choose(version), f"v{owner.record['version']}"
        if tag == old:
            print(f"This is Trainyard {tag} already: nothing to do.")
            return 0
        print(f"update: from {old} to {tag} of {source.address}", flush=True)
        merged = merge_all(owner, source, tag, keep_library, report)
        apply(owner, merged, work / "git")
        code, changelog, _ = scratch.run("cat-file", "blob", f"refs/source/{tag}:CHANGELOG.md")
    if owner.has_wheel:
        move_pin(owner, source, tag, report)
    said = news("" if code else changelog, old.removeprefix("v"), tag.removeprefix("v"))
    print(*filter(None, [said, *report.lines]), sep="\n")
    print("Nothing is committed: git diff HEAD shows all of it, git reset --hard takes it back.")
    first = "decide what is said above, git add it, " if report.code else ""
    print(f"Next: {first}scripts/setup.sh && scripts/test.sh, then git commit -m 'Update Trainyard to {tag}'")
    return report.code


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/update.sh", description="Bring a newer Trainyard, keep your edits.")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="such as 0.2.0; without it the newest release")
    parser.add_argument("--from", dest="address", metavar="URL_OR_PATH", help="where Trainyard is, this time")
    parser.add_argument("--keep-library", action="store_true", help="merge an edited library, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scratch folder goes
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return update(options.version, options.address, options.keep_library)
    except KeyboardInterrupt:
        return 130
    except StopError as stop:
        print(f"update: {stop}", file=sys.stderr)
        return stop.code


if __name__ == "__main__":
    sys.exit(main())
