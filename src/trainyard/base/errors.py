"""The errors that a user sees, and the exit codes that other people's scripts rely on."""

from __future__ import annotations

EXIT_FAILED = 1
"""A run that failed."""
EXIT_USAGE = 2
"""Wrong usage or configuration."""
EXIT_REFUSED = 3
"""A gate refused."""
EXIT_SIGTERM = 143
"""Ended by SIGTERM (128 + 15)."""


class TrainyardError(Exception):
    """Base of the errors that are one clear sentence with the fix; shown without a traceback."""

    exit_code = EXIT_FAILED


class UsageError(TrainyardError):
    """The command line, the config or a path in it is wrong; nothing has been started."""

    exit_code = EXIT_USAGE


class DataError(TrainyardError):
    """The data can't be used: a column is missing, a split has one class, too many rows are bad."""

    exit_code = EXIT_FAILED


class BundleError(TrainyardError):
    """A bundle is incomplete, or differs from its manifest."""

    exit_code = EXIT_FAILED


class ItemError(TrainyardError):
    """One item can't be turned into tensors: an image that can't be decoded, an empty text."""


class OutputError(ItemError):
    """The model's output for an item isn't finite: the item may be good, the model isn't."""
