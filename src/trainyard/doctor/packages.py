"""Checks of the installed packages: versions, and the pair of torch and torchvision."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from trainyard.doctor.checks import Check

SETUP = "run scripts/setup.sh"
SHOWN = ("torch", "torchvision", "lightning", "transformers")
"""The packages by whose versions a report of a fault is read."""
MALICIOUS = {"lightning": {"2.6.2", "2.6.3"}}
"""Uploads that stole credentials (GHSA-w37p-236h-pfx3)."""


def check_packages() -> list[Check]:
    """Checks each package that training needs; one row when all is well."""
    problems = [*_version_problems(), *_torchvision_problems()]
    if problems:
        return problems
    return [Check("packages", "ok", ", ".join(f"{name} {_installed(name)}" for name in SHOWN))]


def training_requirements() -> list[Requirement]:
    """What training needs, as pyproject.toml declares it, with the reasons; empty if the library isn't installed."""
    try:
        declared = map(Requirement, requires("trainyard") or [])
    except PackageNotFoundError:  # a folder on the PYTHONPATH
        return []
    return [one for one in declared if one.marker is None or one.marker.evaluate({"extra": "train"})]


def _version_problems() -> Iterator[Check]:
    for requirement in training_requirements():
        name, installed = requirement.name, _installed(requirement.name)
        if installed is None:
            yield Check(name, "error", "not installed", f"{SETUP}, or pip install -e '.[train]'")
        elif installed in MALICIOUS.get(name, ()):
            detail = f"{installed} was a malicious upload that steals credentials (GHSA-w37p-236h-pfx3)"
            fix = f"uninstall it, change every password and token that this machine had, then {SETUP}"
            yield Check(name, "error", detail, fix)
        elif not requirement.specifier.contains(installed, prereleases=True):
            wanted = f"{name}{requirement.specifier}"
            yield Check(name, "error", f"{installed} isn't {wanted}", f"{SETUP}, or pip install '{wanted}'")


def _torchvision_problems() -> Iterator[Check]:
    """The compiled operators fit one release of torch, and those of the usual wheels only its CUDA build."""
    torch, vision = _installed("torch"), _installed("torchvision")
    if torch is None or vision is None:
        return
    wanted = re.search(r"torch==([\d.]+)", " ".join(requires("torchvision") or []))
    if wanted and _numbers(wanted[1]) != _numbers(torch):
        detail = f"{vision} is made for torch {wanted[1]}, but torch {torch} is installed"
        yield Check("torchvision", "error", detail, f"{SETUP}, or pip install torch=={wanted[1]}")
        return
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        detail = f"{vision} can't be imported with torch {torch}: {' '.join(str(error).split())}"
        fix = f"install both from the same package index: {SETUP} (with TORCH_INDEX=URL for the CPU builds of both)"
        yield Check("torchvision", "error", detail, fix)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """The release number; ``+cpu``, ``rc1`` and the like are left out."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
