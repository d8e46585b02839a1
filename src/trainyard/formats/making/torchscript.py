"""Traces a model and freezes it."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from trainyard.formats.errors import Skip, first_line
from trainyard.formats.making.quiet import quiet_loggers
from trainyard.formats.source import Source
from trainyard.formats.torchscript import INPUT_NAMES, ignore_deprecation


def make(source: Source, file: Path) -> None:
    """Writes the model; it takes any batch, and texts of any length and padding.

    Args:
        source: The model, which stays as it is.
        file: Where to.
    """
    save_traced(copy_for_cpu(source), source, file)


def copy_for_cpu(source: Source) -> nn.Module:
    """A copy of the graph whose convolutions have their channels last, as oneDNN wants them.

    ``torch.jit.optimize_for_inference`` was tried: it gains less on most networks, breaks VGG, and what it makes of a
    convolution can't be saved.
    """
    return copy.deepcopy(source.graph).to(memory_format=torch.channels_last)


def save_traced(graph: nn.Module, source: Source, file: Path) -> None:
    """Traces what was made of a model, freezes it, which folds batch norms into convolutions, and writes it.

    Args:
        graph: Takes the same inputs as ``source.graph``.
        source: The model.
        file: Where to.

    Raises:
        Skip: the network can't be traced.
    """
    with _quiet(), torch.no_grad():
        try:
            traced = torch.jit.trace(graph, source.examples, check_trace=False)  # type: ignore[no-untyped-call]
            frozen = torch.jit.freeze(traced)
        except (RuntimeError, TypeError, ValueError) as error:
            raise Skip(f"torch.jit.trace can't follow this network: {first_line(error)}") from error
        names = json.dumps(source.names)
        torch.jit.save(frozen, str(file), _extra_files={INPUT_NAMES: names})


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what tracing warns of in vain.

    A ``TracerWarning`` tells of a Python value that was read from a tensor and is fixed from now on. In the models that
    we know these are checks of arguments, whether attention is causal without a mask (we always give one), and the
    scales of quantised layers. A value that does depend on the inputs shows in the answers, which the export compares.
    """
    with quiet_loggers(), ignore_deprecation():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # DeBERTa makes a tensor of a size, which is one already while it is traced.
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        yield
