"""Hides what exporters tell their developers; what matters of it is an error, or shows in the answers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

TALKATIVE = ("torch", "onnxscript", "onnx_ir", "torchao", "transformers")
"""Packages that log beside what they return."""


@contextmanager
def quiet_loggers() -> Iterator[None]:
    """Lets these packages log errors alone."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hides log lines and Python's warnings: of deprecated calls within torch, and of dimensions that it renames."""
    with quiet_loggers(), warnings.catch_warnings(action="ignore"):
        yield
