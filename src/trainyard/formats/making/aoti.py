"""Compiles a model ahead of time: ``torch.export``, then AOTInductor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from trainyard.formats.aoti import INPUT_NAMES
from trainyard.formats.errors import Skip, first_line
from trainyard.formats.making.quiet import quiet_exporter
from trainyard.formats.source import Graph, Source

REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What torch's exporters raise, and networks under them; not the system's errors, such as that the disk is full."""


def make(source: Source, file: Path) -> None:
    """Compiles the model for this machine's processor.

    Raises:
        Skip: there is no C++ compiler, or the model can't be exported or compiled.
    """
    source.refuse_recurrent()
    check_compiler()
    compile_package(export(source.graph, source, source.examples), source, file)


def check_compiler() -> None:
    """Looks for the C++ compiler that making a package needs; running one doesn't.

    Raises:
        Skip: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        # torch remembers the compiler that it found once, and takes several words, such as "ccache g++".
        subprocess.run([*shlex.split(get_cpp_compiler()), "--version"], check=True, capture_output=True)
    except (InvalidCxxCompiler, OSError, subprocess.CalledProcessError) as error:
        raise Skip(
            f"AOTInductor compiles with a C++ compiler, and {os.environ.get('CXX', 'g++')} isn't there: install g++"
        ) from error


def export(module: nn.Module, source: Source, examples: tuple[Tensor, ...]) -> ExportedProgram:
    """Exports a module that takes the source's inputs, their dynamic dimensions left open.

    Args:
        module: On the device of the examples.
        source: Says which dimensions are dynamic.
        examples: The source's, to trace with.

    Raises:
        Skip: the module has Python control flow over its inputs, or an operator that can't be exported.
    """
    with quiet_exporter():
        try:
            return torch.export.export(module, examples, dynamic_shapes=_shapes(module, source), strict=False)
        except REFUSALS as error:
            raise Skip(f"torch.export can't trace it: {first_line(error)}") from error


def _shapes(module: nn.Module, source: Source) -> object:
    # A graph takes ``*inputs``, one argument that holds all; what was exported from it takes each by itself.
    return (source.dynamic_shapes,) if isinstance(module, Graph) else source.dynamic_shapes


def compile_package(program: ExportedProgram, source: Source, file: Path) -> None:
    """Compiles an exported program, its weights included.

    Raises:
        Skip: it can't be compiled.
    """
    from torch._inductor import aoti_compile_and_package

    options = {
        "freezing": True,  # weights are constants, laid out for this processor
        "cpp.dynamic_threads": True,  # else the loops are written for today's number of threads
        "aot_inductor.metadata": {INPUT_NAMES: json.dumps(source.names)},
    }
    with quiet_exporter(), torch.no_grad():
        try:
            aoti_compile_and_package(program, package_path=str(file), inductor_configs=options)
        except REFUSALS as error:
            raise Skip(f"AOTInductor can't compile it: {first_line(error)}") from error


def run_calibration(module: nn.Module, source: Source) -> None:
    """Shows a module the calibration records."""
    size = source.preprocessor.calibration_batch
    with torch.no_grad():
        for start in range(0, len(source.calibration), size):
            inputs: tuple[Tensor, ...] = source.tensors(source.batch(source.calibration[start : start + size]))
            module(*inputs)
