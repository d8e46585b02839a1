"""How each rung is made: the attempts, in the order in which they are tried until one passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from trainyard.formats.names import CPU_RUNGS, EXPORTED, Rung, is_gpu, is_int8
from trainyard.formats.recipes import KERNELS, Recipe, without_the_worst
from trainyard.formats.source import Source


class Make(Protocol):
    """Makes an int8 rung."""

    def __call__(self, file: Path, recipe: Recipe) -> None:
        """Writes the file, or raises ``Skip``."""


@dataclass(frozen=True)
class Attempt:
    """One way to make a rung.

    Attributes:
        description: For people; empty if there is only one way.
        make: Writes the file, or raises ``Skip``.
    """

    description: str
    make: Callable[[Path], None]


def rungs_here() -> tuple[Rung, ...]:
    """What is made when nobody says which: all rungs for processors and, where there is a GPU, those for it too."""
    import torch

    return EXPORTED if torch.cuda.is_available() else CPU_RUNGS


def attempts(rung: Rung, source: Source, onnx_file: Path) -> Iterator[Attempt]:
    """The ways to make a rung.

    Args:
        rung: Any but ``eager``.
        source: The model.
        onnx_file: The file of the ``onnx`` rung, which is made there if it isn't yet.
    """
    if is_int8(rung):
        recipes, make = _quantiser(rung, source, onnx_file)
        for recipe in _in_order(recipes, source):
            yield Attempt(recipe.describe(), partial(make, recipe=recipe))
        return
    if rung == "torchscript":
        from trainyard.formats import torchscript

        yield Attempt("", lambda file: torchscript.make(source, file))
    elif rung == "onnx":
        yield Attempt("", lambda file: _copy(_onnx(source, onnx_file), file))
    elif rung == "aoti":
        from trainyard.formats import aoti

        yield Attempt("", lambda file: aoti.make(source, file))
    else:
        yield Attempt("", lambda file: _make_for_gpu(rung, source, onnx_file, file))


def needs(rung: Rung, source: Source) -> list[str]:
    """Flags of the processor without which a rung made here must not run."""
    if is_gpu(rung):
        return []
    if rung.startswith("aoti"):  # compiled for this processor and all that it has
        return list(source.cpu.flags)
    return list(KERNELS[source.cpu.isa].needs) if is_int8(rung) else []


def _quantiser(rung: Rung, source: Source, onnx_file: Path) -> tuple[Sequence[Recipe], Make]:
    if rung == "torchscript-int8":
        from trainyard.formats import torchscript_int8

        return torchscript_int8.recipes(source), lambda file, recipe: torchscript_int8.make(source, file, recipe)
    if rung == "onnx-int8":
        from trainyard.formats import onnx_int8

        return onnx_int8.recipes(source), (
            lambda file, recipe: onnx_int8.make(source, _onnx(source, onnx_file), file, recipe)
        )
    from trainyard.formats import aoti_int8

    return aoti_int8.recipes(source), lambda file, recipe: aoti_int8.make(source, file, recipe)


def _make_for_gpu(rung: Rung, source: Source, onnx_file: Path, file: Path) -> None:
    from trainyard.formats import gpu

    gpu.check_gpu()
    if rung == "onnx-cuda":
        gpu.check_provider()
        _copy(_onnx(source, onnx_file), file)
    else:
        gpu.compile_half(source, file, gpu.PRECISIONS[rung])


def _in_order(recipes: Sequence[Recipe], source: Source) -> Iterator[Recipe]:
    """Recipes of the first's kind, the first without the layers that hurt most, and the recipes of the other kind."""
    first = recipes[0]
    yield from (recipe for recipe in recipes if recipe.static == first.static)
    from trainyard.verify.int8_search import rank_layers

    yield from without_the_worst(first, rank_layers(source))
    yield from (recipe for recipe in recipes if recipe.static != first.static)


def _onnx(source: Source, file: Path) -> Path:
    from trainyard.formats import onnx

    if not file.is_file():
        onnx.make(source, file)
    return file


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
