"""How to quantise: what the processor wants, and what to try next when a model gets worse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trainyard.base.cpu import Isa

Calibrator = Literal["minmax", "percentile", "entropy", "histogram"]
"""The range that was seen; that of most values; that which keeps the most information; that of the least squared error.
ONNX Runtime has the first three, PyTorch the first and the last, torchao's quantiser for x86 the last."""


@dataclass(frozen=True)
class Kernels:
    """What a processor's int8 kernels want.

    Attributes:
        signed_activations: Whether activations are int8; otherwise uint8.
        reduce_range: Whether weights (in ONNX Runtime and torchao) or activations (in PyTorch) use 7 bits, because a
            sum of two products overflows 16.
        engine: PyTorch's quantised engine, of ``torchscript-int8``.
        needs: Flags without which a file that was made for this processor answers differently.
    """

    signed_activations: bool
    reduce_range: bool
    engine: Literal["x86", "qnnpack"]
    needs: tuple[str, ...] = ()


# onnxruntime #12072: ResNet-50 fell to 0.03 % with signed activations of full range on AVX2.
KERNELS: dict[Isa, Kernels] = {
    "avx512_vnni": Kernels(False, False, "x86", ("avx512_vnni",)),
    "avx_vnni": Kernels(False, False, "x86", ("avx_vnni",)),
    "avx512": Kernels(False, True, "x86"),
    "avx2": Kernels(False, True, "x86"),
    "arm64": Kernels(True, False, "qnnpack"),
    "other": Kernels(False, True, "x86"),
}
"""By processor."""

EXCLUDED_SHARES = (0.05, 0.1, 0.2)
"""Shares of the layers that are left in floats, one try after another: those that hurt most."""


@dataclass(frozen=True)
class Recipe:
    """One way to quantise.

    Attributes:
        static: Whether an activation's scale comes from the calibration; otherwise from the batch that is there.
        per_channel: Whether each output channel of a weight has a scale of its own.
        calibrator: How a static scale follows from what was seen.
        exclude: Names of modules, within the graph, that stay in floats.
    """

    static: bool = True
    per_channel: bool = True
    calibrator: Calibrator = "minmax"
    exclude: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        way = f"static, {self.calibrator}" if self.static else "dynamic"
        kept = f", {len(self.exclude)} layers in fp32 ({', '.join(self.exclude)})" if self.exclude else ""
        return f"{way}, per {'channel' if self.per_channel else 'tensor'}{kept}"


def without_the_worst(recipe: Recipe, ranked: Sequence[str]) -> Iterator[Recipe]:
    """The recipe with more and more layers left out.

    Args:
        recipe: Which otherwise.
        ranked: Names of all layers, the most harmful first.
    """
    counts = sorted({max(1, round(share * len(ranked))) for share in EXCLUDED_SHARES})
    for count in counts:
        yield replace(recipe, exclude=tuple(ranked[:count]))
