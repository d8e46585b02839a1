"""Pin the library's wheel in the place of its folder, and bring the folder back: see scripts/vendor.sh.

What a command does is put together in an index and a folder of its own; the clone is touched in one step at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from update_git import RECORD, REFUSED, StopError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "src/trainyard"
FOLDERS = (FOLDER, "tests/trainyard", "tests/template", "benchmarks")
"""What goes with the library."""
PAGES = (
    "changelog.md",
    "compare.md",
    "container.md",
    "data.md",
    "exports.md",
    "figures.md",
    "monitoring.md",
    "report.md",
    "report.png",
    "requests.md",
    "trainyard.md",
    "updating.md",
    "your-project.md",
)
"""And which pages of ``docs/`` are the library's; any other there is the owner's."""
VENDOR = "vendor"
SOURCE_LINE = re.compile(r"(?m)^trainyard = \{[^}\n]*\}")
"""Of ``[tool.uv.sources]``: where scripts/lock.sh reads what the library needs."""
TIME = "315532800"
"""When each file of a wheel was written, in seconds: the first day that a zip can name. The wheel then depends on the
library's tree (and on Python and the locked backend) alone: each clone of a release has the same bytes."""


@dataclass(frozen=True)
class Git:
    """Git in a folder, with variables of its own."""

    folder: Path = ROOT
    index: Path | None = None
    """Another index than the folder's."""

    def __call__(self, *arguments: str, given: bytes = b"") -> str:
        """The output, without the newline at its end."""
        variables = {**os.environ, **({"GIT_INDEX_FILE": str(self.index)} if self.index else {})}
        command = ["git", "-c", "core.autocrlf=false", "-c", "core.quotePath=false", *arguments]
        done = subprocess.run(command, check=False, cwd=self.folder, env=variables, input=given, capture_output=True)
        if done.returncode:
            raise StopError(f"git {arguments[0]} failed: {' '.join(done.stderr.decode(errors='replace').split())}")
        return done.stdout.decode().removesuffix("\n")

    def put(self, files: Mapping[str, bytes | None]) -> None:
        """Writes files into the index in one step, and takes those of no content out of it; not into the folder."""
        lines, nothing = [], "0" * len(self("rev-parse", "HEAD"))
        for path, content in files.items():
            item = nothing if content is None else self("hash-object", "-w", "--stdin", given=content)
            lines.append(f"{'0' if content is None else '100644'} {item}\t{path}\n")
        self("update-index", "--index-info", given="".join(lines).encode())


git = Git()


@dataclass(frozen=True)
class Pin:
    """What stands in for the library's folder; of a file the content goes into ``vendor/``."""

    wheel: str
    """A path in the clone, or a URL that names a commit."""
    content: bytes = b""

    def written_to(self, text: str, record: Mapping[str, str]) -> str:
        """The root's pyproject.toml with this pin in its record, and as the place that locks are made from."""
        digest = hashlib.sha256(self.content).hexdigest() if self.content else ""
        source = {"path": self.wheel}
        if not self.content:
            url, _, commit = self.wheel.removeprefix("git+").partition("#")[0].rpartition("@")
            source = {"git": url, "rev": commit, "subdirectory": FOLDER}
        return recorded(text, {**record, "wheel": self.wheel, "sha256": digest}, source)


def recorded(text: str, record: Mapping[str, str], source: Mapping[str, str]) -> str:
    """The root's pyproject.toml with that record, and that place of the library for uv.

    Raises:
        StopError: the owner has written either in another way, which isn't understood here.
    """
    record = {key: value for key, value in record.items() if value}
    lines, places = (
        [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
        for table in (record, source)
    )
    text = RECORD.sub(lambda _: "\n".join(["[tool.trainyard]", *lines, ""]), text)
    text = SOURCE_LINE.sub(lambda _: f"trainyard = {{ {', '.join(places)} }}", text)
    try:
        tool = tomllib.loads(text)["tool"]
        understood = (tool["trainyard"], tool["uv"]["sources"]["trainyard"]) == (record, source)
    except (tomllib.TOMLDecodeError, KeyError):
        understood = False
    if not understood:
        raise StopError(
            "pyproject.toml has [tool.trainyard], or trainyard of [tool.uv.sources], not as it was shipped."
        )
    return text


def read_record() -> dict[str, str]:
    """What the clone records of the library.

    Raises:
        StopError: nothing, or the clone is a folder of another repository.
    """
    if Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
        raise StopError("this is a folder of another repository; a pin needs a repository of the project's own.")
    try:
        tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise StopError(
            f"pyproject.toml is no TOML ({error}): resolve what is in conflict, then again.", REFUSED
        ) from None
    record: dict[str, str] = tables["tool"].get("trainyard", {})
    if not record:
        raise StopError("there is no record of a version here; scripts/rename.sh NAME makes the clone yours first.")
    return record


def refuse_changes() -> None:
    if git("status", "--porcelain"):
        raise StopError("there are uncommitted changes; commit or stash them first.")


def refuse_edits(record: Mapping[str, str]) -> None:
    """Raises: StopError: the library isn't what is recorded, so that a pin of it would be of nobody's version."""
    now = git("rev-parse", f"HEAD:{FOLDER}")
    if now == record["tree"]:
        return
    if len(now) != len(record["tree"]):
        way = f"if it isn't edited, write as tree in [tool.trainyard] what git rev-parse HEAD:{FOLDER} says"
        raise StopError(f"the library's id was recorded in another hash than this repository's; {way}.", REFUSED)
    try:
        names = "".join(f"\n  {name}" for name in git("diff", "--name-only", record["tree"], now).splitlines())
    except StopError:  # the recorded tree isn't among the clone's objects
        names = ""
    raise StopError(f"the library was edited here; take that back first: {FOLDER}{names}", REFUSED)


def build_wheel(commit: str, folder: Path) -> Path:
    """Build the library's wheel of a commit into a folder, from that commit's files alone.

    Raises:
        StopError: the commit has no library, or the backend isn't installed.
    """
    try:
        git("rev-parse", "--verify", "--quiet", f"{commit}:{FOLDER}/pyproject.toml")
    except StopError:
        raise StopError(f"{commit} is no commit with a library in {FOLDER}.") from None
    with tempfile.TemporaryDirectory() as scratch:
        work, alone = Path(scratch) / "work", Git(index=Path(scratch) / "index")
        alone("read-tree", f"{commit}:{FOLDER}")
        alone("checkout-index", "--all", f"--prefix={work / FOLDER}/")
        for path in work.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        pip = [sys.executable, "-m", "pip", "wheel", "--isolated", "--quiet", "--disable-pip-version-check"]
        words = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheels", f"./{FOLDER}"]
        variables = {**os.environ, "SOURCE_DATE_EPOCH": TIME}
        done = subprocess.run(
            [*pip, *words], check=False, cwd=work, env=variables, umask=0o022, capture_output=True, text=True
        )
        if done.returncode:
            raise StopError(f"the wheel can't be built; run scripts/setup.sh, and again: {done.stderr.strip()}")
        (wheel,) = (work / "wheels").glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, folder))


def pin_file(commit: str) -> Pin:
    """The pin of a commit's wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(commit, Path(scratch))
        return Pin(f"{VENDOR}/{wheel.name}", wheel.read_bytes())


def pin_commit(source: str, commit: str) -> Pin:
    """The pin of a commit where pip fetches it from."""
    if match := re.fullmatch(r"([\w.-]+@[\w.-]+):(?!//)(.+)", source):  # as ssh writes it, and pip doesn't
        source = f"ssh://{match[1]}/{match[2]}"
    elif (ROOT / source).exists():
        source = (ROOT / source).resolve().as_uri()
    return Pin(f"git+{source}@{commit}#subdirectory={FOLDER}")


def fetch_release(record: Mapping[str, str], address: str | None, folder: Path) -> Git:
    """A checkout of the recorded version, whose library is the recorded one.

    Raises:
        StopError: it can't be had, or is another.
    """
    place, tag = address or record.get("source", ""), f"v{record['version']}"
    if not place:
        raise StopError(
            "no source is recorded; say where Trainyard is: --from URL_OR_PATH, or write it there as source."
        )
    place = str((ROOT / place).resolve()) if (ROOT / place).exists() else place
    try:  # a clone has the source's hash, be it SHA-1 or SHA-256
        git("clone", "--quiet", "--depth=1", "--branch", tag, "--", place, str(folder))
    except StopError as stop:
        raise StopError(f"{place} doesn't give {tag}; another place is named by --from: {stop}") from None
    release = Git(folder)
    if release("rev-parse", f"HEAD:{FOLDER}") != record["tree"]:
        sentence = f"{tag} of {place} has another library than this clone began with, which only its own history has"
        raise StopError(f"{sentence}: git revert the commit that took it out.", REFUSED)
    return release


def stage(index: Git) -> None:
    """Brings a put-together index into the clone; git checks first that nothing is in the way."""
    git("read-tree", "-m", "-u", "HEAD", index("write-tree"))


def remove_leftovers(folder: Path) -> None:
    """What Python and setuptools left where the library was: an empty package there would hide the wheel from mypy."""
    for name in ("__pycache__", "*.egg-info"):
        for path in list(folder.rglob(name)):
            shutil.rmtree(path)
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def off(by_git: bool) -> str:
    """Takes the folder out, and pins its wheel; returns what to tell the user."""
    record = read_record()
    if "wheel" in record:
        return f"The library is pinned already, as {record['wheel']}: nothing to do."
    refuse_changes()
    refuse_edits(record)
    with tempfile.TemporaryDirectory() as scratch:
        index = Git(index=Path(scratch) / "index")
        if by_git:
            commit = fetch_release(record, None, Path(scratch) / "release")("rev-parse", "HEAD")
            pin = pin_commit(record["source"], commit)
        else:
            pin = pin_file("HEAD")
        index("read-tree", "HEAD")
        pages = [f"docs/{page}" for page in PAGES]
        index("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", *FOLDERS, *pages)
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        files = {pin.wheel: pin.content} if pin.content else {}
        index.put({**files, "pyproject.toml": pin.written_to(text, record).encode()})
        stage(index)
    for folder in FOLDERS:
        remove_leftovers(ROOT / folder)
    return f"The library is {pin.wheel} now; its folder, tests, benchmarks and pages are gone."


def on(address: str | None) -> str:
    """Brings the folder back; returns what to tell the user."""
    record = read_record()
    if "wheel" not in record:
        return f"The library's folder is there, {FOLDER}: nothing to do."
    refuse_changes()
    with tempfile.TemporaryDirectory() as scratch:
        release = fetch_release(record, address, Path(scratch) / "release")
        # Our README and CHANGELOG become pages of docs/, as that version's own script has it.
        rename = [sys.executable, "scripts/rename.py", record["package"]]
        done = subprocess.run(rename, check=False, cwd=release.folder, capture_output=True, text=True)
        if done.returncode:
            raise StopError(f"that version can't take the name {record['package']}: {done.stderr.strip()}")
        paths = release("ls-files", "--", *FOLDERS, "docs").splitlines()
        own = set(git("ls-files", "--", "docs", *FOLDERS).splitlines())
        if taken := sorted(own & set(paths)):
            raise StopError(f"files of yours are where the library's come back; move them: {', '.join(taken)}", REFUSED)
        index = Git(index=Path(scratch) / "index")
        index("read-tree", "HEAD")
        index(f"--work-tree={release.folder}", "add", "--force", "--", *(path for path in paths))
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        kept = {key: value for key, value in record.items() if key not in ("wheel", "sha256")}
        gone = {} if record["wheel"].startswith("git+") else {record["wheel"]: None}
        index.put({**gone, "pyproject.toml": recorded(text, kept, {"path": FOLDER}).encode()})
        stage(index)
    return f"The library's folder is back, {FOLDER} of v{record['version']}."


def move_pin(ref: str) -> str:
    """Pins the library of a ref in the place of the present one, also beside staged changes of other files."""
    record, file = read_record(), ROOT / "pyproject.toml"
    if "wheel" not in record:
        raise StopError("the library is a folder here, and nothing is pinned: scripts/vendor.sh off")
    if git("ls-files", "--unmerged", "--", "pyproject.toml"):
        raise StopError("pyproject.toml is in conflict; resolve and git add it first, then again.", REFUSED)
    try:
        commit = git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        version = re.search(r'(?m)^VERSION = "(.*)"', git("show", f"{commit}:{FOLDER}/base/version.py"))
        tree = git("rev-parse", f"{commit}:{FOLDER}")
    except StopError:
        raise StopError(f"{ref} is no commit of a Trainyard with its library in {FOLDER}.") from None
    assert version
    by_git = record["wheel"].startswith("git+")
    pin = pin_commit(record["source"], commit) if by_git else pin_file(commit)
    moved = {**record, "version": version[1], "tree": tree}
    files: dict[str, bytes | None] = {record["wheel"]: None, pin.wheel: pin.content}  # it may be the same
    files = {} if by_git else files
    files["pyproject.toml"] = pin.written_to(file.read_text(encoding="utf-8"), moved).encode()
    git.put(files)
    for path, content in files.items():
        if content is None:
            (ROOT / path).unlink(missing_ok=True)
        else:
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_bytes(content)
    return f"The pin is {pin.wheel} now, staged. Should that library need other packages: scripts/lock.sh"


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/vendor.sh", description="The library as a pinned wheel, or as a folder."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("off", help="pin the wheel").add_argument(
        "--git", action="store_true", help="pin a commit of the source"
    )
    verbs.add_parser("on", help="bring the folder back").add_argument("--from", dest="address", metavar="PATH")
    verbs.add_parser("pin", help="move the pin").add_argument("ref", metavar="REF")
    build = verbs.add_parser("build", help="write the wheel of a ref into a folder")
    build.add_argument("ref", metavar="REF")
    build.add_argument("folder", metavar="FOLDER", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "build":
            print(build_wheel(options.ref, options.folder.resolve()))
            return 0
        if options.verb == "pin":
            print(move_pin(options.ref))
            return 0
        said = off(options.git) if options.verb == "off" else on(options.address)
    except StopError as stop:
        print(f"vendor: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        return 130
    print(said)
    if "nothing to do" not in said:
        print("It is staged, not committed: git diff --cached --stat. Next: scripts/setup.sh && scripts/test.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
