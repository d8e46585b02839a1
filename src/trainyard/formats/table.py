"""The table of formats: those of the library, and those that the project adds."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

from trainyard.base.errors import UsageError
from trainyard.base.project import Project, find_project
from trainyard.formats.aoti import Aoti
from trainyard.formats.aoti_half import AotiBf16, AotiFp16
from trainyard.formats.aoti_int8 import AotiInt8
from trainyard.formats.base import Format
from trainyard.formats.eager import Eager
from trainyard.formats.onnx import Onnx
from trainyard.formats.onnx_cuda import OnnxCuda
from trainyard.formats.onnx_int8 import OnnxInt8
from trainyard.formats.torchscript import TorchScript
from trainyard.formats.torchscript_int8 import TorchScriptInt8

if TYPE_CHECKING:
    from trainyard.artifacts.export_record import FormatName

LIBRARY: dict[FormatName, Format] = {
    format.name: format
    for format in (
        Eager(), TorchScript(), TorchScriptInt8(), Onnx(), OnnxInt8(), Aoti(), AotiInt8(), OnnxCuda(), AotiFp16(),
        AotiBf16(),
    )
}  # fmt: skip
"""The library's formats in the order in which they are made and shown, the reference first."""


def all_formats() -> dict[FormatName, Format]:
    """The library's formats, then the project's.

    Raises:
        UsageError: the project's ``formats`` are wrong.
    """
    project = find_project()
    return LIBRARY if project is None else _with_own(project)


def find_format(name: FormatName) -> Format:
    """The format of this name; the project is looked at only if the library has none.

    Raises:
        UsageError: there is none; names the nearest.
    """
    found = LIBRARY.get(name) or all_formats().get(name)
    if found is None:
        raise UsageError(f"there is no format {name}; the nearest is {_nearest(name, all_formats())}")
    return found


def exported_formats(with_gpu: bool) -> tuple[FormatName, ...]:
    """The formats that an export makes, if nobody says which.

    Args:
        with_gpu: Also those for GPUs, which can only be made where there is one.
    """
    formats = list(all_formats().values())[1:]
    return tuple(format.name for format in formats if with_gpu or format.device != "gpu")


def parse_formats(words: str, with_eager: bool = False) -> tuple[FormatName, ...]:
    """The formats of a list such as ``onnx,onnx-int8``, in the table's order.

    Args:
        words: The list, ``--formats``.
        with_eager: Whether ``eager`` may be among them.

    Raises:
        UsageError: one isn't known; names the nearest.
    """
    known = list(all_formats())[0 if with_eager else 1 :]
    names = {word.strip() for word in words.split(",") if word.strip()}
    for name in sorted(names - set(known)):
        raise UsageError(f"--formats: there is no format {name}; the nearest is {_nearest(name, known)}")
    if not names:
        raise UsageError(f"--formats names no format: it is one or more of {','.join(known)}")
    return tuple(name for name in known if name in names)


def _nearest(name: str, known: Collection[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


@cache
def _own(package: str, names: tuple[tuple[str, str], ...]) -> tuple[Format, ...]:
    made = []
    for name, place in names:
        try:
            kind = Project(package).resolve(place)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{package}: its format {name} can't be imported from {place}: {error}") from error
        if not (isinstance(kind, type) and issubclass(kind, Format) and kind.name == name):
            raise UsageError(f"{package}: {place} must be a subclass of Format with the name {name}")
        made.append(kind())
    return tuple(made)


def _with_own(project: Project) -> dict[FormatName, Format]:
    formats = [*LIBRARY.values(), *_own(project.package, tuple(project.formats.items()))]
    _check_apart(project.package, formats)
    return {format.name: format for format in formats}


def _check_apart(package: str, formats: Iterable[Format]) -> None:
    """Two formats never have one name, and one file only if they are the same file, run otherwise."""
    for one, other in combinations(formats, 2):
        if one.name == other.name:
            raise UsageError(f"{package}: {one.name} is a format of the library: give yours another name")
        same_file = isinstance(one, type(other)) or isinstance(other, type(one))
        if one.file == other.file and not same_file:
            raise UsageError(f"{package}: {one.name} and {other.name} both write {one.file}: give yours another file")
