"""The lock files and both pyproject.toml agree, and nothing unchecked or known as malicious can be installed."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import trainyard

ROOT = Path(__file__).resolve().parents[2]
MAIN, SERVE = "requirements.lock", "requirements-serve.lock"
TORCH, IMAGE = "requirements-serve-torch.lock", "requirements-image.lock"
LOCKS = {name: (ROOT / name).read_text() for name in (MAIN, SERVE, TORCH, IMAGE)}
EXTRAS = {MAIN: ("train", "export", "serve", "tracking"), SERVE: ("serve",)}
"""What each lock holds besides the library's core; see scripts/lock.sh."""
TRAINING_STACK = {"datasets", "lightning", "onnx", "onnxscript", "pytorch-lightning", "torch", "torchao",
                  "torchmetrics", "torchvision", "transformers", "triton"}  # fmt: skip
OWNERS = tomllib.loads((ROOT / "pyproject.toml").read_text())
LIBRARYS = tomllib.loads((ROOT / "src/trainyard/pyproject.toml").read_text())
PROJECT = LIBRARYS["project"]


def locked_entries(text: str) -> dict[str, tuple[Requirement, int]]:
    """Each locked requirement by name, with the number of its hashes."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.lstrip().startswith("#")]
    entries = {}
    for line in lines:
        text, *hashes = re.split(r"\s--hash=sha256:", line)
        requirement = Requirement(text)
        assert all(re.fullmatch(r"[0-9a-f]{64}\s*", digest) for digest in hashes), line[:80]
        entries[canonicalize_name(requirement.name)] = (requirement, len(hashes))
    assert len(entries) == len(lines), "a package is locked at two versions"
    return entries


ENTRIES = {name: locked_entries(text) for name, text in LOCKS.items()}


def declared(*extras: str) -> list[Requirement]:
    """What the library asks for, the core and these extras."""
    texts = [*PROJECT["dependencies"]]
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def locked_version(name: str, lock: str = MAIN) -> str:
    """The one version at which a package is locked."""
    (specifier,) = ENTRIES[lock][canonicalize_name(name)][0].specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize(("lock", "least"), [(MAIN, 50), (SERVE, 20), (TORCH, 40), (IMAGE, 10)])
def test_every_locked_requirement_is_pinned_and_hashed(lock, least):
    assert len(ENTRIES[lock]) > least
    for name, (_, hashes) in ENTRIES[lock].items():
        assert locked_version(name, lock)
        assert hashes > 0, name


@pytest.mark.parametrize(
    ("lock", "extra", "requirement"),
    [
        pytest.param(lock, extra, requirement, id=f"{lock}-{extra or 'core'}-{requirement.name}")
        for lock, extras in EXTRAS.items()
        for extra in ("", *extras)
        for requirement in (declared(extra)[len(declared()) :] if extra else declared())
    ],
)
def test_a_lock_has_what_is_declared(lock, extra, requirement):
    assert locked_version(requirement.name, lock) in requirement.specifier


def test_every_extra_is_in_the_main_lock():
    assert set(EXTRAS[MAIN]) == set(PROJECT["optional-dependencies"])


def test_the_serving_lock_is_a_part_of_the_main_one():
    """A bundle is answered by the versions that it was tested with."""
    assert ENTRIES[SERVE].keys() < ENTRIES[MAIN].keys()
    for name, (_, hashes) in ENTRIES[SERVE].items():
        assert (locked_version(name, SERVE), hashes) == (locked_version(name), ENTRIES[MAIN][name][1])


def test_the_images_locks_differ_from_the_main_one_in_packages_of_their_own_alone():
    assert ENTRIES[TORCH].keys() - ENTRIES[MAIN].keys() == {"onnxruntime-gpu"}
    assert ENTRIES[SERVE].keys() < ENTRIES[TORCH].keys()
    for lock in (TORCH, IMAGE):
        for name in ENTRIES[lock].keys() & ENTRIES[MAIN].keys():
            assert (locked_version(name, lock), ENTRIES[lock][name][1]) == (
                locked_version(name),
                ENTRIES[MAIN][name][1],
            )


def test_the_locks_have_what_the_groups_declare():
    owners, librarys = OWNERS["dependency-groups"], LIBRARYS["dependency-groups"]
    groups = [(MAIN, owners["dev"]), (MAIN, librarys["test"]), (TORCH, owners["image-torch"]), (IMAGE, owners["image"])]
    assert len(groups) == len(owners) + len(librarys)
    for lock, group in groups:
        for requirement in map(Requirement, group):
            if requirement.name != PROJECT["name"]:
                assert locked_version(requirement.name, lock) in requirement.specifier


def test_a_floor_is_stated_once():
    """The project asks for the library by its extras; where the library names a package twice, it says the same."""
    project = OWNERS["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    assert {Requirement(text).name for text in asked} == {PROJECT["name"]}
    assert {extra for text in asked for extra in Requirement(text).extras} == {"train", "export", "serve"}
    floors = {}
    for requirement in declared(*PROJECT["optional-dependencies"]):
        assert floors.setdefault(requirement.name, requirement.specifier) == requirement.specifier


@pytest.mark.slow
def test_both_wheels_are_built_and_nothing_is_left_in_the_library(tmp_path):
    pytest.importorskip("setuptools", "77")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    before = sorted((tmp_path / "src/trainyard").rglob("*"))
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheels", "./src/trainyard", "."]
    command = [sys.executable, "-m", "pip", "wheel", *words]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert sorted((tmp_path / "src/trainyard").rglob("*")) == before

    project, library = (zipfile.ZipFile(path).namelist() for path in sorted((tmp_path / "wheels").glob("*.whl")))
    files = {path.relative_to(tmp_path / "src").as_posix() for path in before if path.is_file()}
    assert {name for name in library if ".dist-info/" not in name} == files - {
        "trainyard/LICENSE",
        "trainyard/pyproject.toml",
    }
    assert not [name for name in project if name.startswith("trainyard/")]


def test_the_serving_lock_is_without_the_training_stack():
    assert ENTRIES[MAIN].keys() >= TRAINING_STACK
    assert not ENTRIES[SERVE].keys() & TRAINING_STACK
    assert not [name for name in ENTRIES[SERVE] if name.startswith(("nvidia-", "cuda-"))]


@pytest.mark.parametrize("text", LOCKS.values(), ids=LOCKS)
def test_a_lock_names_no_host_and_no_path(text):
    assert not re.search(r"://|file:|--index-url|--extra-index-url|--find-links|(?<= )@ ", text)
    assert not re.search(r"(?m)(^|\s)/\w", text)


def test_a_review_folds_the_locks():
    attributes = (ROOT / ".gitattributes").read_text().splitlines()
    assert {f"{lock} linguist-generated" for lock in LOCKS} <= set(attributes)


@pytest.mark.parametrize("malicious", ["2.6.2", "2.6.3"])
def test_malicious_lightning_can_not_be_installed(malicious):
    assert locked_version("lightning") != malicious
    assert locked_version("pytorch-lightning") != malicious
    (lightning,) = [requirement for requirement in declared("train") if requirement.name == "lightning"]
    assert malicious not in lightning.specifier


@pytest.mark.parametrize(
    ("name", "vulnerable"),
    [("torch", "2.9.1"), ("lightning", "2.6.5"), ("Pillow", "12.1.1"), ("onnx", "1.20.1")],
)
def test_the_floors_exclude_known_holes(name, vulnerable):
    (requirement,) = [requirement for requirement in declared("train", "export") if requirement.name == name]
    assert vulnerable not in requirement.specifier


def test_what_serves_needs_no_training_stack():
    heavy = {requirement.name for requirement in declared("train")} - {requirement.name for requirement in declared()}
    assert {"torch", "lightning", "transformers"} <= heavy


def test_python_versions_agree():
    assert OWNERS["project"]["requires-python"] == PROJECT["requires-python"]
    supported = SpecifierSet(PROJECT["requires-python"])
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    tested = re.findall(r'"(3\.\d+)"', workflow)
    assert tested == ["3.11", "3.12", "3.13"]
    assert [f"3.{minor}" for minor in range(9, 16) if f"3.{minor}" in supported] == tested


def test_the_version_is_stated_once_and_in_the_changelog():
    assert PROJECT["dynamic"] == ["version"]
    assert f"## [{trainyard.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
