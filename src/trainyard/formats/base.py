"""What a format is: a class that says what it is, makes its file from a model, and opens it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

from trainyard.formats.errors import Skip
from trainyard.formats.recipes import KERNELS, Recipe, without_the_worst

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainyard.artifacts.export_record import FormatName
    from trainyard.formats.source import Source
    from trainyard.preprocess.base import Inputs

Device: TypeAlias = Literal["cpu", "gpu", "any"]
Precision: TypeAlias = Literal["fp32", "int8", "fp16", "bf16"]
RankLayers: TypeAlias = Callable[["Source"], Sequence[str]]
"""Names the layers of a model, those that suffer most from int8 first."""


class Runtime(Protocol):
    """Runs a model, whatever its format."""

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Gives logits ``[batch, classes] float32``."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One way to make a format's file.

    Attributes:
        description: For people; empty if there is only one way.
        make: Writes the file, or raises ``Skip``.
    """

    description: str
    make: Callable[[Path], None]


class Format(ABC):
    """A format. Its file imports no framework at its top: what lists the formats needs none of them.

    Attributes:
        name: What users call it.
        file: Its file within an export. A format that is another run otherwise inherits from it, and shares its file.
        package: What must be installed to open it.
        device: What it runs on.
        precision: What it computes in, which decides on the bounds of its gate.
        baseline: The format that it must be faster than to be worth a lower precision; figures show it in its colour.
        deprecated: Why nobody should begin with it; said when it is made.
    """

    name: ClassVar[FormatName]
    file: ClassVar[str]
    package: ClassVar[str] = "torch"
    device: ClassVar[Device] = "cpu"
    precision: ClassVar[Precision] = "fp32"
    baseline: ClassVar[FormatName] = "eager"
    deprecated: ClassVar[str] = ""

    @abstractmethod
    def make(self, source: Source, file: Path) -> None:
        """Makes the file from a model, which stays as it is.

        Raises:
            Skip: it can't be made here, or not of this model.
        """

    @abstractmethod
    def open(self, file: Path, device: str | None = None, threads: int | None = None) -> Runtime:
        """Loads the file.

        Args:
            file: What ``make`` wrote.
            device: A torch device; by default the CPU.
            threads: Of one call; by default the framework's own number.

        Raises:
            ModuleNotFoundError: ``package`` isn't installed.
            BundleError: the file can't be loaded.
        """

    def attempts(self, source: Source, rank_layers: RankLayers) -> Iterator[Attempt]:
        """The ways to make it, of which the first that passes the gate is taken."""
        yield Attempt("", partial(self.make, source))

    def needs(self, source: Source) -> list[str]:
        """Flags of the processor without which a file that was made here must not run."""
        return list(KERNELS[source.cpu.isa].needs) if self.precision == "int8" else []


class Int8Format(Format):
    """A format in 8-bit integers, for which several recipes are tried."""

    precision = "int8"

    @abstractmethod
    def recipes(self, source: Source) -> Sequence[Recipe]:
        """What to try, in this order; layers that suffer most are left out of the first one by ``attempts``."""

    @abstractmethod
    def make(self, source: Source, file: Path, recipe: Recipe | None = None) -> None:
        """As ``Format.make``, by a recipe; without one by the first."""

    def attempts(self, source: Source, rank_layers: RankLayers) -> Iterator[Attempt]:
        """Recipes of the first's kind, the first without the worst layers, and the recipes of the other kind."""
        recipes = self.recipes(source)
        first = recipes[0]

        def in_order() -> Iterator[Recipe]:
            yield from (recipe for recipe in recipes if recipe.static == first.static)
            yield from without_the_worst(first, rank_layers(source))
            yield from (recipe for recipe in recipes if recipe.static != first.static)

        for recipe in in_order():
            yield Attempt(recipe.describe(), partial(self.make, source, recipe=recipe))


def check_gpu() -> None:
    """Looks for the GPU that a format is made and examined on.

    Raises:
        Skip: there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise Skip("it is for a GPU, and torch finds none here")
