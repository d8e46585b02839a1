"""How a rung says that it can't be made."""

from __future__ import annotations


class Skip(Exception):
    """A rung can't be made here. Its row gives the reason: a missing compiler, say, or a layer without a kernel."""
